"""What every room shares: errors, documents, units, progress."""
