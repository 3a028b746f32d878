"""Rules of operations on one value of the pictures: reductions, pools, padding and others. walk.py runs them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from models.graph.channels import labels as table
from models.graph.channels.labels import compact, splits, varies
from models.graph.channels.notes import Notes
from models.graph.channels.values import Raw, run_empty

aten = table.aten


class Walk(Protocol):
    """What rules use of walk.Walk."""

    notes: Notes

    def spatial(self, x: Tensor, directions: int) -> Tensor: ...

    def two(self, one: Any, other: Any, product: bool) -> Tensor: ...

    def with_raw(self, x: Tensor, raw: Raw, product: bool, zeroed: bool = True) -> Tensor: ...

    def unknown(self, given: list[Any], run: Callable[[], Any] | None = None) -> Any: ...


Rule = Callable[[Walk, Any, Any, Any], Any]
"""Runs a call of a walk, given as target, args and kwargs. None: the rule does not hold for these arguments."""


def _spread_out(rule: Callable) -> Rule:
    """Return a rule that passes the arguments of a call one by one."""
    return lambda walk, target, args, kwargs: rule(walk, *args, **kwargs)


def _shaped(walk: Walk, target: Any, args: Any, kwargs: Any) -> Any:
    return walk.unknown([], lambda: run_empty(target, args, kwargs))


def _zeros(walk: Walk, x: Tensor, **_: Any) -> Tensor:
    """A narrower value has narrower zeros, which are 0 in any channel."""
    return x


def _filled(walk: Walk, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """A narrower value has fewer of these numbers, which are not 0 in a masked channel."""
    return -x.abs()


def _divided(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    x, by = args[:2]
    fits = isinstance(x, Tensor) and isinstance(by, Raw)
    return walk.with_raw(x, by, product=True, zeroed=False) if fits else None


def _reduced(walk: Walk, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """Run a reduction over axes, None for all of them."""
    axes = sorted({axis % x.ndim for axis in (dim or range(x.ndim))}, reverse=True)
    if any(varies(x, axis) for axis in axes):
        return walk.unknown([x])
    for axis in axes:
        x = x.narrow(axis, 0, 1) if keepdim else x.select(axis, 0)
    return x


def _pooled(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor:
    directions = re.findall(r"(\d)d", target.overloadpacket.__name__)[0]  # 2 for max_pool2d_with_indices
    return walk.spatial(args[0], int(directions))


def _pooled_with_places(walk: Walk, target: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    walk.notes.sizes = tuple(run_empty(target, args, kwargs)[0].shape)
    return _with_places(_pooled(walk, target, args, kwargs))


def _extreme(walk: Walk, target: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
    """Run a max or min along an axis without channels, which returns places, too."""
    if len(args) < 2 or varies(args[0], args[1]):
        return None
    return _with_places(_reduced(walk, args[0], args[1:2], *args[2:], **kwargs))


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


def _softmax(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    return None if varies(args[0], args[1]) else -args[0].abs()


RULES: dict[Any, Rule] = {
    **dict.fromkeys(table.SHAPES, _shaped),
    aten.zeros_like: _spread_out(_zeros),
    **dict.fromkeys((aten.ones_like, aten.full_like), _spread_out(_filled)),
    **dict.fromkeys(table.REDUCTIONS, _spread_out(_reduced)),
    **dict.fromkeys(table.SPATIAL, _pooled),
    **dict.fromkeys(table.WITH_INDICES, _pooled_with_places),
    **dict.fromkeys((aten.max, aten.min), _extreme),
    **dict.fromkeys((aten.pad, aten.constant_pad_nd), _spread_out(_padded)),
    **dict.fromkeys((aten.softmax, aten._softmax), _softmax),
    aten.div: _divided,
    aten.glu: _spread_out(_glu),
}
"""By operation. Moves, functions of one number at a time, sums and products are Walk's own."""
