"""Keys and certificates: who is the host, and which board is which."""
