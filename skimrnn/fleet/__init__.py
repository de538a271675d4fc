"""Training many runs on one machine, packed, within a time budget."""
