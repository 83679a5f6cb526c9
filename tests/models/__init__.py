"""Real models for demos, tests and benches, made once and cached outside the tree."""
