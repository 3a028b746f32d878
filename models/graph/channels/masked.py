"""The number of a masked channel at a node, where the code alone decides it: 1/2 behind a sigmoid.

A cut is exact only if this number is finite everywhere: a divisor must not be 0. Weights never decide the number,
because training changes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from models.graph import calls
from models.graph.channels import labels as table
from models.graph.channels.labels import compact, stretched

aten = table.aten

Number = float | None

KEEPS = table.MOVES - {aten.to, aten._to_copy} | {aten.mean, aten.amax, aten.amin}
"""Calls that give a number if all numbers that they read are this number. Conversions may round."""


def number(
    node: fx.Node, labels: Any, before: Mapping[fx.Node, Any], known: Mapping[fx.Node, Number], module: nn.Module | None
) -> Number:
    """Return the number of masked channels at a node; None if it is not known, or they differ.

    Args:
        labels: the node's labels.
        before: the labels of the nodes that it reads, or other values such as sizes.
        known: the numbers of these nodes.
        module: the function of each number that the node calls, None if it calls another module or none.
    """
    if not isinstance(labels, Tensor):
        return None
    if bool((compact(labels) >= 0).all()):
        return 0.0
    sources = [source for source in node.all_input_nodes if not isinstance(before[source], int | float)]
    if any(known.get(source) is None for source in sources):
        return None
    packet = calls.packet(node)
    if packet in KEEPS and len(sources) == 1:
        return known[sources[0]]
    if packet in calls.NOT and calls.is_truth(node):  # ~1 is -2
        return float(not known[sources[0]])
    run: Any = node.target if packet in table.ELEMENTWISE and not _draws(node) else module
    if run is None or (len(sources) > 1 and _one_meets_several(sources, before)):
        return None

    def at(source: fx.Node) -> Any:
        return before[source] if isinstance(before[source], int | float) else torch.full((1,), known[source] or 0.0)

    args, kwargs = map_arg((node.args, node.kwargs), at)
    return float(run(*args, **kwargs))


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _one_meets_several(sources: list[fx.Node], before: Mapping[fx.Node, Any]) -> bool:
    """Return whether one channel may be broadcast over several: it is not masked with each of them."""
    if any(calls.packet(source) in table.EXPANDS for source in sources):
        return True
    labels = [before[source] for source in sources]
    return any(stretched(one, other) for one in labels for other in labels if one is not other)
