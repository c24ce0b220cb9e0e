"""Real boards: their workers and host, their profiles, and the validation of plans."""
