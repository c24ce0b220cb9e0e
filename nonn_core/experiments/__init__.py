"""Experiments: the published accuracy tables, trained row by row."""
