"""Rules of operations on one value of the pictures: pools, padding and others. walk.py runs them."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from models.graph.calls import source, values
from models.graph.channels import labels as table
from models.graph.channels.choices import CHOICES
from models.graph.channels.kernels import KERNELS
from models.graph.channels.labels import compact, splits, stretched, varies
from models.graph.channels.reductions import REDUCTIONS
from models.graph.channels.rule import Rule, Walk, spread_out
from models.graph.channels.values import Raw, run_empty

aten = table.aten


def _shaped(walk: Walk, target: Any, args: Any, kwargs: Any) -> Any:
    return walk.unknown([], lambda: run_empty(target, args, kwargs))


def _zeros(walk: Walk, x: Tensor, **_: Any) -> Tensor:
    """A narrower value has narrower zeros, which are 0 in any channel."""
    return x


def _filled(walk: Walk, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """A narrower value has fewer of these numbers, which are not 0 in a masked channel."""
    return -x.abs()


def _divided(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Run a division. A divisor must not be 0 in a masked channel, unless it serves several channels and stays."""
    x, by = args[:2]
    if isinstance(x, Tensor) and isinstance(by, Raw):
        return walk.with_raw(x, by, product=True, zeroed=False)
    if isinstance(x, Raw) or not (walk.masked[values(walk.at)["other"]] or stretched(by, x)):
        return None
    return walk.two(x, by, product=True)


def _partial(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    return None if walk.masked[source(walk.at)] is None else walk.function(target, args, kwargs)


def _mixed(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Run start + weight * (end - start)."""
    start, end, weight = args
    if not isinstance(start, Tensor) or not isinstance(end, Tensor):
        return None
    return walk.two(start, walk.two(weight, walk.two(end, start, product=False), product=True), product=False)


def _pooled(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor:
    directions = re.findall(r"(\d)d", target.overloadpacket.__name__)[0]  # 2 for max_pool2d_with_indices
    return walk.spatial(args[0], int(directions))


def _pooled_with_places(walk: Walk, target: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    walk.notes.sizes = tuple(run_empty(target, args, kwargs)[0].shape)
    return _with_places(_pooled(walk, target, args, kwargs))


def _with_places(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels of the largest numbers and of their places, which are not 0 in a masked channel."""
    return labels, -labels.abs()


def _glu(walk: Walk, x: Tensor, dim: int = -1) -> Tensor:
    """Run the product of one half of a value with the sigmoid of the other half."""
    one, other = x.chunk(2, dim)
    if splits(x, (one, other)):
        walk.notes.shared.append(compact(x).abs().unique())
    return walk.two(one, -other.abs(), product=True)


def _padded(walk: Walk, x: Tensor, pad: list[int], mode: Any = "constant", value: float | None = None) -> Tensor:
    mode, value = (mode, value or 0) if isinstance(mode, str) else ("constant", mode)
    axes = [x.ndim - 1 - place // 2 for place, size in enumerate(pad) if size]
    if any(varies(x, axis) for axis in axes):
        return walk.unknown([x])
    shape = list(x.shape)
    for place, size in enumerate(pad):
        shape[x.ndim - 1 - place // 2] += size
    for axis in axes:
        x = x.narrow(axis, 0, 1)
    out = x.expand(shape)
    return out if mode != "constant" or value == 0 else -out.abs()


RULES: dict[Any, Rule] = {
    **dict.fromkeys(table.SHAPES, _shaped),
    aten.zeros_like: spread_out(_zeros),
    **dict.fromkeys((aten.ones_like, aten.full_like), spread_out(_filled)),
    **CHOICES,
    **REDUCTIONS,
    **KERNELS,
    **dict.fromkeys(table.SPATIAL, _pooled),
    **dict.fromkeys(table.WITH_INDICES, _pooled_with_places),
    **dict.fromkeys((aten.pad, aten.constant_pad_nd), spread_out(_padded)),
    aten.div: _divided,
    aten.lerp: _mixed,
    **dict.fromkeys(table.PARTIAL, _partial),
    aten.glu: spread_out(_glu),
}
"""By operation. Moves, functions of one number at a time, sums and products are Walk's own."""
