"""The published accuracy tables, and what training their rows here comes to."""
