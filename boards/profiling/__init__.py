"""What this machine computes, spends and holds, measured through the real runtime."""
