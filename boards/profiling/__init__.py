"""Measurement of a board: benchmarks whose results become a device profile."""
