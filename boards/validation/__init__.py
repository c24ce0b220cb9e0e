"""Validation: what a plan predicted, beside what its boards did."""
