"""What leaves the laboratory: a compressed network as a small file that needs no code of the user's, and what runs it."""

import model_compression  # noqa: F401  our packages are found where they lie
