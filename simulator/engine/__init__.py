"""The engine: task graphs run in a scenario, by events or by a recurrence."""
