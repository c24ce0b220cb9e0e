"""What the hardware is: units, devices, links, fleets, and where each figure comes from."""
