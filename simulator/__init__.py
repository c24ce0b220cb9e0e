"""What happens when an image is processed: task graphs, scenarios, engine, workloads, results."""
