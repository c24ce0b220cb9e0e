"""Ways to answer a question without a solver, which the planner is compared with."""
