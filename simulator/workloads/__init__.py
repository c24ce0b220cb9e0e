"""Workloads: what one image makes boards do, and closed forms of its latency."""
