"""Channels of layers whose weights the network computes: standardised weights, parametrizations. They are never cut."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx

from models.graph.calls import packet, values
from models.graph.flow import computes, is_held, readers
from models.graph.normal import NormalForm

aten = torch.ops.aten

LAYERS = frozenset({
    aten.conv1d, aten.conv2d, aten.conv3d, aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d, aten.linear,
})  # fmt: skip
"""Layers as calls."""


def computed_channels(form: NormalForm) -> dict[str, int]:
    """Return how many channels are made by layers whose weights the network computes, by the reason why they stay.

    Such a layer is a call, and its channels have no classes. Those of the network's answer do not count.
    """
    found: dict[str, int] = defaultdict(int)
    for node in form.captured.graph.nodes:
        if (
            packet(node) not in LAYERS
            or _is_last(form, node)
            or not isinstance(weight := values(node).get("weight"), fx.Node)
        ):
            continue
        if is_held(weight) and (shape := node.meta.get("shape")):
            size = shape[-1] if packet(node) is aten.linear else shape[1]
            found[f"{node.meta.get('owner') or packet(node).__name__} computes the weights that make them"] += size or 0
    return found


def _is_last(form: NormalForm, node: fx.Node) -> bool:
    """Return whether no layer is behind a node, so that its channels are the network's answer."""
    met, todo = {node}, readers(node)
    while todo:
        at = todo.pop()
        if computes(form, at):
            return False
        if at not in met:
            met.add(at)
            todo += readers(at)
    return True
