"""What to build: the problem, its solvers, the proven plan, and its training recipe."""
