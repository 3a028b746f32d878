"""Rules of comparisons, of truths, and of calls that choose between numbers by them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from models.graph.channels import labels as table
from models.graph.channels.masked import NEGATIONS, Number
from models.graph.channels.rule import Rule, Walk
from models.graph.channels.values import Raw

aten = table.aten

_CONDITION = {aten.where: 0, aten.masked_fill: 1}
"""Calls that choose, and which argument holds the truths."""


def _compared(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor:
    """Run a comparison of two values. In a masked channel, 0 is compared with 0."""
    found = walk.two(args[0], args[1], product=False)
    return -found.abs() if bool(target(torch.zeros(1), torch.zeros(1))) else found


def _both(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor:
    return walk.two(args[0], args[1], product=True)


def _either(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor:
    return walk.two(args[0], args[1], product=False)


def _negated(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor:
    """Run `not`: it gives 0 in a masked channel only where that holds a truth."""
    x, node = args[0], walk.at.args[0]
    return x.abs() if isinstance(node, fx.Node) and walk.masked.get(node) == 1 else -x.abs()


def _chosen(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Run a call that chooses between numbers by truths."""
    if kwargs or len(args) != 3:
        return None
    values: list[Any] = [each for each in args if isinstance(each, Tensor)]
    values += [each for each in args if isinstance(each, Raw)]
    found: Tensor = reduce(lambda one, other: walk.two(one, other, product=False), values)
    numbers = [_number(walk, *each) for each in zip(args, walk.at.args, strict=True)]
    if None in numbers:
        return -found.abs()
    truth = _CONDITION[target.overloadpacket]
    held = [torch.tensor(bool(n)) if place == truth else torch.tensor(n) for place, n in enumerate(numbers)]
    return found.abs() if float(torch.where(held[truth], *_ordered(held, truth))) == 0 else -found.abs()


def _ordered(held: list[Tensor], truth: int) -> tuple[Tensor, Tensor]:
    """Return what a truth chooses, then the other number: masked_fill fills where its truths hold."""
    return (held[1], held[2]) if truth == 0 else (held[2], held[0])


def _number(walk: Walk, value: Any, node: Any) -> Number:
    """Return the number of an argument in a masked channel; None if it is not known, or weights decide it."""
    if isinstance(value, Tensor):
        return walk.masked.get(node)
    if isinstance(value, Raw):
        return float(value.value) if value.own is None and value.value.numel() == 1 else None
    return float(value)


CHOICES: dict[Any, Rule] = {
    **dict.fromkeys(table.COMPARISONS, _compared),
    **dict.fromkeys((aten.logical_and, aten.bitwise_and), _both),
    **dict.fromkeys((aten.logical_or, aten.bitwise_or, aten.logical_xor, aten.bitwise_xor), _either),
    **dict.fromkeys(NEGATIONS, _negated),
    **dict.fromkeys(_CONDITION, _chosen),
}
