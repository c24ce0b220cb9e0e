"""nonn-plan: the Python interface, and the command line as its client."""
