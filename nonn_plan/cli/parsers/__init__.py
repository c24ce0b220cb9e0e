"""Parsers of what people type: options, budgets, grids, workloads."""
