"""Board failures, and the accuracy that remains when some students do not answer."""
