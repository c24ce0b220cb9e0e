"""Pipelines: one network cut by layers over boards, and its best cut."""
