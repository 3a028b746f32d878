"""Quantization: what goes where (spec), how a network gets it (prepare), and the commands that train with it."""

import model_compression  # noqa: F401  our packages are found where they lie
