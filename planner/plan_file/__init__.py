"""The plan file: its schema, its making, its validation, and what follows from it."""
