"""The worker: a board's process, which answers images with its students' features."""
