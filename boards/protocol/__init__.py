"""Messages between boards and host: the Open Inference Protocol, and faster frames."""
