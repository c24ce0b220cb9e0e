"""Plans: problem, data, solvers, plan file, diagnosis and exploration."""
