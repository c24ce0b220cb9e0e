"""Models of a bundle, run on this machine."""
