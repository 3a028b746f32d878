"""The memory format that one pass over memory needs to have the bits of the network's own operations."""

from __future__ import annotations

from torch import Tensor


def is_last(x: Tensor) -> bool:
    """Return whether a value, (B, C, H, W), is channels last in memory and nothing else.

    A value of one place or one channel is contiguous as well, and operations differ in what they make of it. The bits of
    sums depend on the format.
    """
    _, channels, high, wide = x.shape
    return not x.is_contiguous() and x.stride() == (channels * high * wide, 1, channels * wide, channels)
