"""Distillation: losses, batches, the training loop, runs on disk, and their evaluation."""
