"""What if: optima over grids of budgets, fleets and objectives, Pareto fronts, break-points."""
