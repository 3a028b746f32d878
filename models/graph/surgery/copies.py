"""Captured narrower copies of a network. The plan and the cut often need the same copy, so the last one is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from torch import nn

from engine.cli.archs import ARCHS
from engine.system.messages import some
from models.check import Misdeclared
from models.graph.capture.cache import captured
from models.graph.capture.form import capture
from models.graph.channels.classes import Channels, channels
from models.graph.normal import NormalForm
from models.graph.surgery.following import narrow_copy
from models.graph.surgery.resize import NotLegal, shapes
from models.graph.surgery.same_calls import alike, other_number

Sizes = Mapping[tuple[str, int], int]
"""The wanted size of an axis, by tensor and axis."""

_known: WeakKeyDictionary[nn.Module, tuple[object, NormalForm, Channels]] = WeakKeyDictionary()
"""The last copy of each network, with the arguments that it was made from."""


def fits(model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes, arch: str) -> bool:
    """Return whether the code runs at these sizes and its output has the same shape. This is faster than a capture.

    Where attributes of the code follow the sizes, a capture shows whether the code also computes with them.
    """
    try:
        made = narrow_copy(model, form, shapes(form, found, sizes), found.whole)
        if made.followed:
            _captured(model, form, found, sizes, arch)
        return made.runs
    except (NotLegal, Misdeclared):
        return False


def narrower(
    model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes, arch: str
) -> tuple[NormalForm, Channels]:
    """Return the normal form of a narrower copy, with all resized tensors 0, and its classes of channels.

    Raises:
        NotLegal, Misdeclared: as `_captured`.
    """
    small, its = _captured(model, form, found, sizes, arch)
    return copy.deepcopy(small), its


def its_channels(model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes, arch: str) -> Channels:
    """Return the classes of channels of a narrower copy.

    Raises:
        NotLegal, Misdeclared: as `_captured`.
    """
    return _captured(model, form, found, sizes, arch)[1]


def _captured(
    model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes, arch: str
) -> tuple[NormalForm, Channels]:
    """Return the kept narrower copy, which must not be changed, and its classes.

    Args:
        model: the network as its code builds it. The code must not change between two calls.
        form, found: its normal form and classes of channels.

    Raises:
        NotLegal: if a layer cannot have these sizes, or the code computes with them.
        Misdeclared: if the copy cannot be captured, for example because its code contains a size as a number.
    """
    wanted = shapes(form, found, sizes)
    made_of = (wanted, found.whole, form.captured.picture, arch)
    if model not in _known or _known[model][0] != made_of:
        made = narrow_copy(model, form, wanted, found.whole)
        # sizes determine the graph of the toolkit's networks; user code may give another graph each time
        own = arch in ARCHS
        small = (
            captured(made.model, form.captured.picture, arch)
            if own
            else capture(made.model, form.captured.picture, arch, check=False)
        )
        if made.followed and not alike(form, small):
            raise NotLegal(f"the code computes with {some(made.followed)}")
        if not own and (name := other_number(form, small)):
            raise NotLegal(f"the code computes with a width: {name}")
        small.captured.followed = made.followed
        _known[model] = made_of, small, channels(small, found.whole)
    return _known[model][1:]
