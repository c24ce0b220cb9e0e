"""The fleet of a plan on this machine: a process for each board, behind a link of its own."""
