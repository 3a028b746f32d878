"""Folding batch norm into the layers before it, and proving that nothing changed."""

import model_compression  # noqa: F401  our packages are found where they lie
