"""Narrower copies of a network, captured. A plan tries one, and the cut wants the same again: it is captured once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from torch import nn

from engine.cli.archs import ARCHS
from models.graph.capture.cache import captured
from models.graph.capture.form import answers, capture
from models.graph.channels.classes import Channels, channels
from models.graph.normal import NormalForm
from models.graph.surgery.resize import NotLegal, resized, shapes

Sizes = Mapping[tuple[str, int], int]
"""How many entries an axis of a tensor is to have."""

_known: WeakKeyDictionary[nn.Module, tuple[object, NormalForm, Channels]] = WeakKeyDictionary()
"""Of each network its last copy, with what it was made of."""


def fits(model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes) -> bool:
    """Whether the code runs at these sizes and answers as before. That is soon known, and a capture takes long."""
    try:
        small = resized(model, shapes(form, found, sizes), found.whole)
    except NotLegal:
        return False
    return answers(small, form.captured.picture, form.captured.answer)


def narrower(
    model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes, arch: str
) -> tuple[NormalForm, Channels]:
    """The normal form of a narrower copy, all of whose changed tensors are 0, and its classes of channels.

    Raises:
        NotLegal, Misdeclared: as `_captured`.
    """
    small, its = _captured(model, form, found, sizes, arch)
    return copy.deepcopy(small), its


def its_channels(model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes, arch: str) -> Channels:
    """The classes of channels of a narrower copy.

    Raises:
        NotLegal, Misdeclared: as `_captured`.
    """
    return _captured(model, form, found, sizes, arch)[1]


def _captured(
    model: nn.Module, form: NormalForm, found: Channels, sizes: Sizes, arch: str
) -> tuple[NormalForm, Channels]:
    """A narrower copy as it is kept, not to be changed, and its classes.

    Args:
        model: as its code makes it. Its code is not to change between two calls.
        form, found: its normal form and the classes of that.

    Raises:
        NotLegal: where a layer cannot have these sizes.
        Misdeclared: where the copy cannot be captured: a size stands in its code.
    """
    wanted = shapes(form, found, sizes)
    made_of = (wanted, found.whole, form.captured.picture, arch)
    if model not in _known or _known[model][0] != made_of:
        plain = resized(model, wanted, found.whole)
        # the graph of one of ours is told by its sizes; of other code it may be another each time
        own = arch in ARCHS
        small = (
            captured(plain, form.captured.picture, arch)
            if own
            else capture(plain, form.captured.picture, arch, check=False)
        )
        _known[model] = made_of, small, channels(small, found.whole)
    return _known[model][1:]
