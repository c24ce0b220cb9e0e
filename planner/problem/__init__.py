"""The problem: what a plan is asked for."""
