"""One network cut by layers over boards, as a pipeline: its cost and its best cut."""
