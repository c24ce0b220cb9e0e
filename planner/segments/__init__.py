"""One model cut by layers across boards: what it costs, and the best way to cut it."""
