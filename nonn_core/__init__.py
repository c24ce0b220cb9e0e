"""The method: teachers, students, cost of a model, partitions, losses, training, evaluation."""
