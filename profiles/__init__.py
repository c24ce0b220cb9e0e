"""The hardware: devices, links, fleets, and the provenance of their quantities."""
