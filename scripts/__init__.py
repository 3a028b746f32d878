"""What a person runs around the commands: reports, summaries, the quickstart."""

import model_compression  # noqa: F401  our packages are found where they lie
