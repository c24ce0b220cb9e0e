"""Exploration: optima over grids of budgets, fleets and objectives, and Pareto fronts."""
