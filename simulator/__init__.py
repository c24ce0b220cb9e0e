"""What happens when an image is processed: SimPy engine, closed forms, workloads, energy."""
