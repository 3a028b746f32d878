"""Executors run programs. `reference` defines the right answer; the others are faster and tests compare them with it."""
