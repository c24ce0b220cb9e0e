"""Networks: blueprints and exact costs without torch, and the torch modules built from them."""
