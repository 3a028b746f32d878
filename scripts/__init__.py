"""Programs around the commands: reports, summaries, benchmarks, the quickstart."""

import model_compression  # noqa: F401  imports the toolkit's packages from its own folder
