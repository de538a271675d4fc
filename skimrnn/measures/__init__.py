"""What is computed of a model, not timed: its operations, and the official scores of its answers."""
