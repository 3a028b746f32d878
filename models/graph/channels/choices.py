"""Rules of comparisons, of truths, and of calls that choose between numbers by them."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, fx

from models.graph.calls import COMPARISONS, LOGIC, NOT, is_truth
from models.graph.channels import labels as table
from models.graph.channels.labels import stretched
from models.graph.channels.masked import Number
from models.graph.channels.rule import Rule, Walk
from models.graph.channels.values import Raw

aten = table.aten

CONDITION = {aten.where: 0, aten.masked_fill: 1}
"""Calls that choose, and which argument holds the truths."""


def _compared(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor:
    """Run a comparison of two values. In a masked channel, 0 is compared with 0."""
    found = walk.two(args[0], args[1], product=False)
    return -found.abs() if bool(target(torch.zeros(1), torch.zeros(1))) else found


def _joined(walk: Walk, target: Any, args: Any, kwargs: Any, product: bool) -> Tensor | None:
    """Run a call on two truths: `and` is their product. On integers, and with a number in the code, there is no rule."""
    both = all(isinstance(each, (Tensor, Raw)) for each in args) and len(args) == 2
    return walk.two(args[0], args[1], product=product) if both and is_truth(walk.at) else None


def _negated(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Run `not`: it gives 0 in a masked channel only where that holds a truth."""
    if not is_truth(walk.at):  # ~1 is -2
        return None
    x, node = args[0], walk.at.args[0]
    return x.abs() if isinstance(node, fx.Node) and walk.masked.get(node) == 1 else -x.abs()


def _chosen(walk: Walk, target: Any, args: Any, kwargs: Any) -> Tensor | None:
    """Run a call that chooses between numbers by truths."""
    if kwargs or len(args) != 3:
        return None
    values: list[Any] = [each for each in args if isinstance(each, Tensor)]
    values += [each for each in args if isinstance(each, Raw)]
    found: Tensor = reduce(lambda one, other: walk.two(one, other, product=False), values)
    numbers = [_number(walk, *each, values) for each in zip(args, walk.at.args, strict=True)]
    truth = CONDITION[target.overloadpacket]
    held = numbers.pop(truth)
    if target.overloadpacket is aten.masked_fill:
        numbers.reverse()  # it fills where its truths hold
    chosen = set(numbers) if held is None else {numbers[0] if held else numbers[1]}
    return found.abs() if chosen == {0.0} else -found.abs()


def _number(walk: Walk, value: Any, node: Any, values: list[Any]) -> Number:
    """Return the number of an argument in a masked channel; None if it is not known, weights decide it, or it serves several channels."""
    if isinstance(value, Tensor):
        several = any(stretched(value, other) for other in values if isinstance(other, Tensor))
        return None if several else walk.masked.get(node)
    if isinstance(value, Raw):
        return float(value.value) if value.value.numel() == 1 and _is_of_code(walk, node) else None
    return float(value)


def _is_of_code(walk: Walk, node: fx.Node) -> bool:
    """Return whether a value is made of constants of the code alone."""
    if node.op == "get_attr":
        return walk.is_of_code(str(node.target))
    return all(_is_of_code(walk, each) for each in node.all_input_nodes)


CHOICES: dict[Any, Rule] = {
    **dict.fromkeys(COMPARISONS, _compared),
    **{call: partial(_joined, product=kind == "and") for call, kind in LOGIC.items()},
    **dict.fromkeys(NOT, _negated),
    **dict.fromkeys(CONDITION, _chosen),
}
