"""The host: it sends images to the boards of a plan and joins their features."""
