"""Results: what was recorded, what it adds up to, and files and pictures of it."""
