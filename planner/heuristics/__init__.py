"""Heuristics: plans found fast and without a proof."""
