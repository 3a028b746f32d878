"""Deployment: pack a compressed network into a small file that needs none of your code, and run it."""

import model_compression  # noqa: F401  finds the toolkit's packages beside this one
