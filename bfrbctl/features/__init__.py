"""From recordings to frame channels and the sequence table."""
