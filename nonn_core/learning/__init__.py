"""Finding weights: losses, what they are combined to, the loop, runs on disk."""
