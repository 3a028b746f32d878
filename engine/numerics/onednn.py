"""Which convolutions stay in fp32 in a bf16 training on a CPU, because oneDNN's bf16 gradients are wrong or slow there.

A tap of a kernel that meets no number of the map, only padding, has the gradient 0. In bf16, oneDNN reads uninitialised
memory for it (seen with torch 2.14 on Zen 4 and Zen 5): 3x3 kernels with stride 2 on maps of one place, 7x7 on 2x2, transposed
ones whose result is cut. In fp32 the gradient is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any


def in_fp32(conv: Any, sides: Sequence[int]) -> bool:
    """Return whether a convolution on a CPU stays in fp32 in a bf16 training.

    That is one with idle taps; and, as fp32 is 1.2 to 3 times as fast (torch 2.14, Zen 5), a strided one in groups and a
    depthwise one with a kernel above 3x3.

    Args:
        conv: a convolution of any kind.
        sides: rows and columns of the map that it reads.
    """
    depthwise = 1 < conv.groups == conv.in_channels
    plain = len(conv.kernel_size) == 2 and not conv.transposed  # others were not measured
    slow = plain and conv.groups > 1 and (max(conv.stride) > 1 or (depthwise and max(conv.kernel_size) > 3))
    if slow or conv.padding_mode != "zeros" or conv.padding == "valid":  # other paddings are numbers of the map
        return slow
    if conv.padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        ends = tuple(d * (k - 1) - first for d, k, first in zip(conv.dilation, conv.kernel_size, padding, strict=True))
    else:
        padding = ends = tuple(conv.padding)
    return has_idle_taps(
        tuple(sides), tuple(conv.kernel_size), tuple(conv.stride), padding, tuple(conv.dilation), ends,
        tuple(conv.output_padding) if conv.transposed else None,
    )  # fmt: skip


@lru_cache(4096)
def has_idle_taps(
    sides: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...], ends: tuple[int, ...], output_padding: tuple[int, ...] | None = None,
) -> bool:  # fmt: skip
    """Return whether a tap of a convolution's kernel meets no number of the map.

    Args:
        padding, ends: before the first and behind the last number of each axis.
        output_padding: of a transposed convolution, whose taps must meet its result; None for others.
    """
    added = output_padding or (0,) * len(sides)
    for n, k, s, p, d, end, more in zip(sides, kernel, stride, padding, dilation, ends, added, strict=True):
        if output_padding is None:
            steps, places = (n + p + end - d * (k - 1) - 1) // s + 1, n
        else:
            steps, places = n, (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for tap in range(k):
            first = max(0, -(-(p - tap * d) // s))  # the first step at which it is not in the padding before
            if first >= steps or first * s - p + tap * d >= places:
                return True
    return False
