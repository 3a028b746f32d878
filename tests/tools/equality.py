"""Equal to the last bit."""

from __future__ import annotations

import torch


def same(one, other) -> bool:
    """Return whether two values are equal bit for bit, through dicts and lists."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
