"""Emulation of a fleet on this machine: worker processes behind shaped links."""
