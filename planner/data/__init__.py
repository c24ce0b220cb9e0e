"""Problem data: the problem in whole numbers, as solvers read it."""
