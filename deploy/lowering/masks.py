"""Masks of softmax: -inf hides a number from it. Programs hold no -inf, and take LOWEST in its place."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from models.graph.calls import packet
from models.graph.flow import readers

aten = torch.ops.aten

LOWEST = float(np.finfo(np.float32).min)
"""exp of it, less any number of the row, is 0, as that of -inf. In a row that is wholly hidden, softmax then gives equal shares."""
SHARES = (aten.softmax, aten._softmax)
VIEWS = (aten.reshape, aten.unflatten, aten.flatten, aten.squeeze, aten.unsqueeze)


def only_hides(node: fx.Node) -> bool:
    """Return whether softmax alone reads a call's value."""
    behind = readers(node)
    return bool(behind) and all(
        packet(reader) in SHARES or (packet(reader) in VIEWS and only_hides(reader)) for reader in behind
    )
