"""What boards and host say to each other: the standard protocol, and frames that are faster."""
