"""Channels of layers whose weights the network computes: standardised weights, parametrizations. They are never cut."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx

from models.graph.calls import packet, values
from models.graph.channels.kernels import passes_channels
from models.graph.flow import LAYER_CALLS, is_held, last_nodes
from models.graph.normal import NormalForm

aten = torch.ops.aten


def computed_channels(form: NormalForm) -> dict[str, int]:
    """Return how many channels are made by layers whose weights the network computes, by the reason why they stay.

    Such a layer is a call, and its channels have no classes. Those of the network's answer do not count.
    """
    found: dict[str, int] = defaultdict(int)
    last = {*last_nodes(form)}
    for node in form.captured.graph.nodes:
        if packet(node) not in LAYER_CALLS or node in last or passes_channels(node):
            continue
        weight, shape = values(node).get("weight"), node.meta.get("shape")
        if isinstance(weight, fx.Node) and is_held(weight) and shape:
            size = shape[-1] if packet(node) is aten.linear else shape[1]
            found[f"{node.meta.get('owner') or packet(node).__name__} computes the weights that make them"] += size or 0
    return found
