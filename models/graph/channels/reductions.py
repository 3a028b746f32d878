"""Rules of calls that combine numbers along axes: over places, or over branches that the code stacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from models.graph.calls import packet
from models.graph.channels import labels as table
from models.graph.channels.labels import compact, varies
from models.graph.channels.rule import Rule, Walk, named
from models.graph.channels.values import nothing
from models.graph.flow import readers

aten = table.aten

BOUNDS = table.EXPANDS | {aten.unsqueeze, aten.clamp, aten.clamp_min, aten.add, aten.sqrt}
"""What code does with a norm before it divides by it."""


def _combined(walk: Walk, x: Tensor, axes: list[int]) -> Tensor | None:
    """Return the labels of numbers combined along axes, which keep size 1. None: all channels lie along these axes.

    Where the code stacks branches, the channels that meet along the axis of the stack go together.
    """
    first = wide = compact(x)
    for axis in axes:
        first = first.narrow(axis, 0, 1)
    if bool((first.abs() != wide.abs()).any()):
        if not any(varies(first.abs(), axis) for axis in range(x.ndim)):
            return None
        walk.notes.unite(first, wide)
    odd = (wide < 0).any(tuple(axes), keepdim=True)
    return torch.where(odd, -first.abs(), first.abs()).expand(_shape(x, axes))


def _total(walk: Walk, target: Any, given: dict[str, Any], axes: list[int]) -> Tensor | None:
    """Return the labels of a sum or norm over all channels: of no channel. None: a cut may change it."""
    x = given["self"]
    if target.overloadpacket not in table.TOTALS or given.get("ord", 1) <= 0 or not _only_divides(walk.at):
        return None
    odd = compact(x)
    walk.notes.fix(odd[odd < 0], f"not 0 when masked, read by {walk.notes.here}")
    return nothing(_shape(x, axes))


def _only_divides(node: fx.Node) -> bool:
    """Return whether a value only serves as a divisor, as in F.normalize. A factor of it may be the number of channels."""
    return all(
        node is not reader.args[0] if packet(reader) is aten.div else packet(reader) in BOUNDS and _only_divides(reader)
        for reader in readers(node)
    )


def _shape(x: Tensor, axes: list[int]) -> list[int]:
    return [1 if axis in axes else size for axis, size in enumerate(x.shape)]


def _axes(x: Tensor, dim: Any) -> list[int]:
    """Return the axes that an argument names; none means all of them."""
    axes = [dim] if isinstance(dim, int) else dim or range(x.ndim)
    return sorted({axis % x.ndim for axis in axes}, reverse=True)


def _reduced(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | tuple[Tensor, ...] | None:
    """Run a reduction over axes, None for all of them. A variance may come with a mean."""
    given = named(target, args, kwargs)
    x = given["self"]
    axes = _axes(x, given.get("dim"))
    found = _combined(walk, x, axes)
    found = _total(walk, target, given, axes) if found is None else found
    if found is None:
        return None
    found = found if given.get("keepdim") else found.squeeze(axes)
    return found if len(target._schema.returns) == 1 else (found, found)


def _extreme(walk: Walk, target: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
    """Run a max or min along an axis, which returns places, too. They are not 0 in a masked channel."""
    found = _reduced(walk, target, args, kwargs) if "dim" in named(target, args, kwargs) else None
    return (found[0], -found[1].abs()) if found else None


def _softmax(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Run a softmax, which is not 0 in a masked channel. Stacked branches have shares of each channel."""
    x, axis = args[:2]
    return None if _combined(walk, x, _axes(x, axis)) is None else -x.abs()


REDUCTIONS: dict[Any, Rule] = {
    **dict.fromkeys(table.REDUCTIONS, _reduced),
    **dict.fromkeys((aten.max, aten.min), _extreme),
    **dict.fromkeys((aten.softmax, aten._softmax), _softmax),
}
