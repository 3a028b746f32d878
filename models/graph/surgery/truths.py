"""Comparisons, truths and choices by them on values that are partly unknown (NaN), for absorb.py.

A truth is a number here: 1, 0, or NaN where it is not known.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from models.graph import calls

aten = torch.ops.aten

LOGIC = {
    **{call: getattr(torch, f"logical_{kind}") for call, kind in calls.LOGIC.items()},
    **dict.fromkeys(calls.NOT, torch.logical_not),
}
"""What calls on truths compute: those on bits take no NaN."""
CHOICES = frozenset({aten.where, aten.masked_fill})


def truth(packet: Any, args: Any, kwargs: Any) -> Tensor:
    """Return the truths that a comparison or a call on truths gives; they are unknown where a number that it reads is."""
    found: Tensor = LOGIC.get(packet, packet)(*args, **kwargs).double()
    for leaf in tree_leaves((args, kwargs)):
        if isinstance(leaf, Tensor):
            found = torch.where(leaf.isnan(), math.nan, found)
    return found


def chosen(packet: Any, args: Any) -> Tensor:
    """Return what a call chooses; it is unknown where its truth is."""
    held, one, other = args if packet is aten.where else (args[1], args[2], args[0])
    return torch.where(held.isnan(), math.nan, torch.where(held != 0, one, other))


def is_known(packet: Any, args: Any) -> bool:
    """Return whether `chosen` computes a call: `where` of one value gives places."""
    return packet in CHOICES and len(args) == 3
