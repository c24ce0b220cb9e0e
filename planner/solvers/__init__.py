"""Exact solvers: CP-SAT models, their bounds, and proofs of optimality."""
