"""What a teacher knows and how it is shared out: activities, filter network, communities, P0."""
