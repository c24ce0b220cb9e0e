"""Families of networks: names, and the blueprints that they stand for.  Torch-free."""
