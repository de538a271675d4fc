"""From raw texts to batches: registry, sources, tokens, vectors, prepared data."""
