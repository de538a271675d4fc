"""What trained models do token by token: outcomes, threshold sweeps, confidence, and what is skimmed."""
