"""The simulator: task graphs, scenarios, workloads, engine, results."""
