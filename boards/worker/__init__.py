"""A worker: the process on a board that answers images with the features of its students."""
