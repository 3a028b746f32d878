"""Rules for windows of maps: F.unfold lays them side by side, F.fold adds them up."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule
from deploy.lowering.modules import pair
from deploy.operations.base import window
from deploy.operations.layers import Transposed
from deploy.operations.places import Concatenate, Pad, Slice
from models.graph.calls import values

aten = torch.ops.aten


def unfold(builder: Builder, node: fx.Node) -> int:
    """Lay the windows of maps side by side, (C, H, W) to (C * places in a window, windows), as nn.Unfold does."""
    kernel, apart, around, stride = _window(node)
    source = builder.source()
    windows = window(builder.shape(source), kernel, stride, _sides(around), apart)
    if any(around):
        source = builder.add(Pad, source, part=".pad", sides=_sides(around))
    channels = builder.shape(source)[0]
    parts = []
    for place in np.ndindex(*kernel):
        part = source
        for axis in range(2):
            start = place[axis] * apart[axis]
            stop = start + (windows[axis] - 1) * stride[axis] + 1
            part = builder.add(
                Slice, part, part=f".{place}.{axis}", axis=1 + axis, start=start, stop=stop, step=stride[axis]
            )
        parts.append(builder.reshaped(part, (channels, 1, prod(windows)), f".{place}.line"))
    found = builder.add(Concatenate, *parts, part=".joined", axis=1)
    return builder.reshaped(found, builder.given())


def fold(builder: Builder, node: fx.Node) -> int:
    """Add windows that overlap to maps, as nn.Fold does: a transposed layer whose weights are 0 and 1."""
    kernel, apart, around, stride = _window(node)
    channels, *sides = builder.given()
    windows = window(builder.given(), kernel, stride, _sides(around), apart)
    places = prod(kernel)
    weight = np.tile(np.eye(places, dtype=np.float32).reshape(places, 1, *kernel), (channels, 1, 1, 1))
    more = tuple(
        size - ((count - 1) * by - 2 * near + step * (many - 1) + 1)
        for size, count, by, near, step, many in zip(sides, windows, stride, around, apart, kernel, strict=True)
    )
    maps = builder.reshaped(builder.source(), (channels * places, *windows), ".maps")
    return builder.add(
        Transposed, maps, weight=weight, shift=np.zeros(channels, np.float32), stride=stride, padding=around, more=more,
        dilation=apart, groups=channels,
    )  # fmt: skip


def _window(node: fx.Node) -> list[tuple[int, int]]:
    """Return the size of a window, the distance of its places, the padding, and the distance of windows."""
    told = values(node)
    return [pair(told[name]) for name in ("kernel_size", "dilation", "padding", "stride")]


def _sides(around: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the padding above, below, left, right."""
    above, left = around
    return above, above, left, left


WINDOWS: dict[Any, Rule] = {aten.im2col: unfold, aten.col2im: fold}
