"""The base of every room: errors, documents, units, progress."""
