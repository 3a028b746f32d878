"""How many pictures are evaluated at a time."""

from __future__ import annotations

ON_CPU, ON_GPU = 50, 500
"""On a CPU more pictures are no faster, as their numbers do not fit into its caches, and need more memory."""


def at_a_time(asked: int | None, device: str) -> int:
    """Return the number of pictures: `asked`, or the default for a type of device, "cpu" or "cuda"."""
    return asked or (ON_CPU if device == "cpu" else ON_GPU)
