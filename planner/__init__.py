"""What to build: the question, the CP-SAT model, the proven plan, and its training recipe."""
