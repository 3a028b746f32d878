"""A network resized to the tensors of a file. narrow.py cuts channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from models.graph.capture.form import capture
from models.graph.channels.classes import Channels, channels
from models.graph.normal import NormalForm, Size
from models.graph.surgery.following import narrow_copy
from models.graph.surgery.resize import NotLegal, tensors


@dataclass(frozen=True)
class Stored:
    """A network resized to a file.

    Args:
        model: the network as its code builds it, with layers of the file's sizes. Resized tensors are 0.
        whole: names of its grouped convolutions that lose whole groups; None if nothing was cut.
    """

    model: nn.Module
    whole: frozenset[str] | None = None


def as_stored(model: nn.Module, picture: Size, arch: str, stored: Mapping[str, tuple[int, ...]]) -> Stored:
    """Resize a network to the shapes of a file whose channels may have been cut.

    Other differences are left to the strict load.

    Args:
        model: the network as its code builds it.
        stored: the shapes of the file's tensors.

    Raises:
        NotLegal: if a tensor differs along an axis without channels, is larger than in the network, or contradicts
            another tensor.
    """
    held = model.state_dict(keep_vars=True)
    own = {name: tuple(tensor.shape) for name, tensor in held.items()}
    form = None
    if any(name.endswith(".weight") and name not in own for name in stored):  # a merged layer named by capture
        form = capture(model, picture, arch, check=False)
        stored = {form.captured.aliases.get(name, name): shape for name, shape in stored.items()}
    smaller = {name: stored[name] for name, shape in own.items() if name in stored and stored[name] != shape}
    if not smaller:
        return Stored(model)
    form = form or capture(model, picture, arch, check=False)
    found = channels(form)
    # a tensor may have several names, of which the graph uses one
    cut = {(id(held.get(form.captured.aliases.get(p.tensor, p.tensor))), p.axis) for p in found.places}
    for name, shape in smaller.items():
        axes = [axis for axis, (new, old) in enumerate(zip(shape, own[name], strict=False)) if new != old]
        if len(shape) != len(own[name]) or any(
            (id(held[name]), axis) not in cut or shape[axis] > own[name][axis] for axis in axes
        ):
            raise NotLegal(f"{name} is {shape} in the file and {own[name]} in the network")
    _agree(form, found, stored)
    small = narrow_copy(model, form, {**smaller, **_absent(form, found, stored)}, found.whole)
    return Stored(small.model, found.whole)


def _absent(form: NormalForm, found: Channels, stored: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors that a file lacks, such as a merged batch norm's, from rows of the same channels."""
    size: dict[tuple[int, ...], int] = {}
    for place in found.places:
        key = form.captured.aliases.get(place.tensor, place.tensor)
        if place.rows and key in stored:
            size.setdefault(tuple(place.classes.tolist()), stored[key][place.axis])
    shapes = {}
    for place in found.places:
        key, channels_ = form.captured.aliases.get(place.tensor, place.tensor), tuple(place.classes.tolist())
        if key not in stored and channels_ in size:
            shapes[key] = (size[channels_],)
    return {key: shape for key, shape in shapes.items() if shape != tuple(form.state_dict()[key].shape)}


def _agree(form: NormalForm, found: Channels, stored: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file whose tensors keep different numbers of the same channels.

    Raises:
        NotLegal: with the names and shapes of both tensors.
    """
    held = tensors(form)
    first: dict[tuple[int, ...], tuple[str, int]] = {}
    for place in found.places:
        name = form.captured.aliases.get(place.tensor, place.tensor)
        if name not in stored:
            continue
        size = stored[name][place.axis] * len(place.classes) // held[place.tensor].shape[place.axis]
        other, wanted = first.setdefault(tuple(place.channels.tolist()), (name, size))
        if size != wanted:
            raise NotLegal(f"{name} has shape {stored[name]}, {other} has shape {stored[other]}")
