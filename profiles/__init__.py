"""What the hardware is: devices, links, fleets, and where each of their values comes from."""
