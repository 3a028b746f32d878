"""What runs programs. `reference` defines the right answer; the others are faster and are measured against it."""
