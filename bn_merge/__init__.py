"""Folding of batch norms into the layers before them, with a proof that nothing changed."""

import model_compression  # noqa: F401  imports the toolkit's packages from its own folder
