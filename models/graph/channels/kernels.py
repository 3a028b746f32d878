"""The rule of convolutions that are calls: with one kernel for each channel from a buffer, as a blur pool has."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from models.graph import calls
from models.graph.channels.labels import along, aten
from models.graph.channels.rule import Rule, Walk, named
from models.graph.channels.values import Raw


def _conv(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Run a depthwise convolution without a bias, whose kernels are rows, or one kernel for all channels."""
    given = named(target, args, kwargs)
    x, weight = given["input"], given["weight"]
    if not passes_channels(walk.at) or not isinstance(weight, Raw) or given.get("bias") is not None:
        return None
    found = along(x, 1) if x.ndim == weight.value.ndim else None  # else without an axis for pictures
    if found is None or not _follows(walk, weight):
        return None
    if weight.own is not None:
        walk.notes.lie(weight.own, weight.axis(0), found.abs())
    return walk.notes.out(found, x)


def _follows(walk: Walk, weight: Raw) -> bool:
    """Return whether a narrower network has the kernels of its channels."""
    if weight.own is not None:
        return True
    computed = calls.values(walk.at)["weight"].op == "call_function"  # by code that can read the number of channels
    return computed and bool((weight.value == weight.value[:1]).all())


def passes_channels(node: fx.Node) -> bool:
    """Return whether a call is a depthwise convolution with one output for each input: it makes no channels."""
    if calls.packet(node) not in KERNELS:
        return False
    given = calls.values(node)
    before, after = (each.meta.get("sizes") or (0, 0) for each in (given["input"], node))
    return given["groups"] == before[1] == after[1] > 1


KERNELS: dict[Any, Rule] = dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), _conv)
