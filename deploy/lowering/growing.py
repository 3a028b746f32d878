"""Rules for calls that make values larger: padding, repeating."""

from __future__ import annotations

from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import fx, nn

from deploy.lowering.builder import Builder, Rule, is_number
from deploy.operations.functions import Combine, Constant
from deploy.operations.places import Concatenate, Pad, Slice, Upsample
from models.graph.calls import packet, values
from models.graph.flow import module, readers

aten = torch.ops.aten


def pad(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    given: Any = told.get("pad", told.get("padding"))
    kind = {"reflection_pad2d": "reflect", "replication_pad2d": "replicate"}.get(
        getattr(node.target, "__name__", "").partition(".")[0], told.get("mode", "constant")
    )
    fill = told.get("value")
    if fill == -np.inf and all(_is_max_pool(builder, reader) for reader in readers(cast(fx.Node, builder.node))):
        fill = float(np.finfo(np.float32).min)  # no number is smaller; a window of padding alone gives it, not -inf
    if isinstance(fill, float) and not np.isfinite(fill):
        raise builder.refused("padding with infinity that a max-pool alone does not read")
    if not all(isinstance(side, int) for side in given) or not (fill is None or is_number(fill)):
        raise builder.refused("padding that is computed")
    shape, source = builder.shape(builder.source()), builder.source()
    if len(shape) == 2:  # a line of numbers in each channel is a picture with one row
        shape, given = (shape[0], 1, shape[1]), (*given[:2], 0, 0, *given[2:])
        source = builder.reshaped(source, shape, ".row")
    rest = [*given, *[0] * (8 - len(given))]
    if len(shape) > 3 and (not any(rest[4:]) or prod(shape[:-3]) == 1):  # maps of several axes of channels
        shape = (prod(shape[:-2]), *shape[-2:])
        source = builder.reshaped(source, shape, ".maps")
    if len(given) > 8 or any(rest[6:]) or len(shape) != 3:
        raise builder.refused("other axes than channels, rows and columns")
    left, right, above, below, front, back = rest[:6]
    if min(front, back) < 0:  # it cuts channels away
        start, stop = max(-front, 0), shape[0] - max(-back, 0)
        source = builder.add(Slice, source, part=".kept", axis=0, start=start, stop=stop)
    found = builder.add(
        Pad, source, sides=(above, below, left, right), kind=kind, fill=float(fill or 0),
        channels=(max(front, 0), max(back, 0)),
    )  # fmt: skip
    return builder.reshaped(found, builder.given(), ".shape")


def _is_max_pool(builder: Builder, node: fx.Node) -> bool:
    return isinstance(module(builder.form, node), nn.MaxPool2d) or packet(node) in (
        aten.max_pool2d, aten.max_pool2d_with_indices,
    )  # fmt: skip


def expand(builder: Builder, node: fx.Node) -> int:
    """Repeat one number of each channel over rows and columns, as in squeeze-excite; else multiply by ones."""
    before, after = builder.shape(builder.source()), builder.given()
    if before == after:
        return builder.source()
    if len(before) == len(after) == 3 and before == (after[0], 1, 1):
        return builder.add(Upsample, builder.source(), kind="nearest", size=after[1:])
    whole = (1,) * (len(after) - len(before)) + before
    ones = np.ones([new if old == 1 else 1 for old, new in zip(whole, after, strict=True)], np.float32)
    held = builder.add(Constant, part=".ones", numbers=ones)
    return builder.add(Combine, builder.reshaped(builder.source(), whole, ".shape"), held, kind="mul")


def repeat(builder: Builder, node: fx.Node) -> int:
    """Lay copies of a value one after the other along its axes."""
    counts, found = values(node)["repeats"], builder.source()
    if len(counts) != len(builder.shape(found)) + 1 or counts[0] != 1:
        raise builder.refused("it works across pictures")
    if not all(isinstance(count, int) and count for count in counts):
        raise builder.refused("by numbers that are computed, or 0")
    for axis, count in enumerate(counts[1:]):
        if count > 1:
            found = builder.add(Concatenate, *[found] * count, part=f".{axis}", axis=axis)
    return found


GROWING: dict[Any, Rule] = {
    aten.pad: pad, aten.constant_pad_nd: pad, aten.reflection_pad2d: pad, aten.replication_pad2d: pad,
    aten.repeat: repeat, aten.expand: expand, aten.expand_as: expand,
}  # fmt: skip
