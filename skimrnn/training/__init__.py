"""Training, evaluation and the run record."""
