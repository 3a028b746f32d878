"""Channel pruning by network slimming (arXiv 1708.06519): sparse training, plan, mask or surgery."""

import model_compression  # noqa: F401  imports the toolkit's packages from its own folder
