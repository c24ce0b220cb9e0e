"""Communities: a teacher's filter network, divided, and what of it may be dropped."""
