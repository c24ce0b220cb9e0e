"""What really happens: built students against the boards of their plan."""
