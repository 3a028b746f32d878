"""Quantization: the spec of a network's quantizers, their insertion (prepare), and the commands that use them."""

import model_compression  # noqa: F401  imports the toolkit's packages from its own folder
