"""Cutting of classes of channels: set to 0 in a copy (masked), or removed from a network of smaller layers (narrowed).

The narrower network is the user's module with resized layers, captured again, so its own code computes all sizes. Each
of its channels takes the weights of an old channel with the same places: see Channels.signatures.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection

import torch
from torch import Tensor, nn

from engine.checkpoint.words import counted
from models.graph.channels.classes import Channels, Signature
from models.graph.channels.notes import Place
from models.graph.normal import NormalForm, stored, type_and_device
from models.graph.surgery.copies import narrower
from models.graph.surgery.resize import NotLegal, tensors


def masked(form: NormalForm, found: Channels, dropped: Collection[int]) -> NormalForm:
    """Return a copy in which all rows of the dropped classes are 0, so that their channels are 0."""
    model = copy.deepcopy(form)
    gone = torch.tensor(sorted(dropped), dtype=torch.int64)
    held = tensors(model)
    with torch.no_grad():
        for place in found.places:
            if place.rows and place.zeroed:
                tensor, rows = held[place.tensor], torch.isin(place.classes, gone).nonzero()[:, 0]
                tensor.index_fill_(place.axis, rows.to(tensor.device), 0)
    return model


def narrowed(model: nn.Module, form: NormalForm, found: Channels, dropped: Collection[int], arch: str) -> NormalForm:
    """Return the normal form of the narrower network, with the weights that stay.

    Args:
        model: the captured network of `form`, of any type and on any device; it is copied.
        form: its normal form, whose weights are used.
        found: its classes of channels.
        dropped: the classes to drop.

    Raises:
        NotLegal: if the code cannot have the remaining widths.
        Misdeclared: if a narrower copy cannot be captured, for example because its code contains a size as a number.
    """
    gone = torch.tensor(sorted(dropped), dtype=torch.int64)
    left = {(p.tensor, p.axis): int((~torch.isin(p.classes, gone)).sum()) for p in found.places}
    new, its = narrower(model, form, found, left, arch)
    dtype, device = type_and_device(form)
    new.to(device, dtype)
    fill(new, its, form, found, dropped)
    new.captured.whole, new.cfg = found.whole, list(form.cfg)
    return new


def fill(new: NormalForm, its: Channels, old: NormalForm, found: Channels, dropped: Collection[int]) -> None:
    """Fill a narrower network from the network that it was cut from, in place.

    Raises:
        NotLegal: if the classes of both networks do not match one to one by signature.
    """
    source = _channels(its, found, _classes(its, found, dropped))
    places = {(place.tensor, place.axis): place for place in found.places}
    values = {name: tensor.detach() for name, tensor in tensors(old).items()}
    held = stored(new)
    for place in its.places:
        before = places[place.tensor, place.axis]
        values[place.tensor] = _gathered(values[place.tensor], place, before, source)
    with torch.no_grad():
        for name, tensor in tensors(new).items():
            if id(tensor) in held:  # the narrower network computes constants of the code itself
                tensor.copy_(values[name])


def _classes(its: Channels, found: Channels, dropped: Collection[int]) -> dict[int, int]:
    """Return for each class of a narrower network the old class that fills it: with equal signature, in order."""
    supply, demand = _by_signature(found, dropped), _by_signature(its)
    for signature in {*supply, *demand}:
        if len(supply[signature]) != len(demand[signature]):
            where = sorted(signature[0])[0][0]
            raise NotLegal(
                f"{where}: {counted(len(demand[signature]), 'channel')} of a kind, but {len(supply[signature])} kept"
            )
    return {cls: old for s in demand for cls, old in zip(demand[s], supply[s], strict=True)}


def _by_signature(found: Channels, dropped: Collection[int] = ()) -> dict[Signature, list[int]]:
    result: dict[Signature, list[int]] = defaultdict(list)
    for cls, signature in sorted(found.signatures.items()):
        if cls not in dropped:
            result[signature].append(cls)
    return result


def _channels(its: Channels, found: Channels, classes: dict[int, int]) -> dict[int, int]:
    """Return for each channel of a narrower network the old channel that fills it, class by class and in order."""
    mine, theirs = _members(its), _members(found)
    lies, lay = its.where("channels"), found.where("channels")
    result: dict[int, int] = {}
    for cls, old in classes.items():
        if [lies[channel] for channel in mine[cls]] != [lay[channel] for channel in theirs[old]]:
            where = sorted(lies[mine[cls][0]])[0][0]
            raise NotLegal(f"{where}: channels that are cut together have other places than before")
        result.update(zip(mine[cls], theirs[old], strict=True))
    return result


def _members(found: Channels) -> dict[int, list[int]]:
    """Return the channels of each class, in order."""
    result: dict[int, set[int]] = defaultdict(set)
    for place in found.places:
        for cls, channel in zip(place.classes.tolist(), place.channels.tolist(), strict=True):
            result[cls].add(channel)
    return {cls: sorted(channels) for cls, channels in result.items()}


def _gathered(value: Tensor, place: Place, before: Place, source: dict[int, int]) -> Tensor:
    """Return the entries of an axis that its channels need. Several entries of one channel are taken in order."""
    at: dict[int, list[int]] = defaultdict(list)
    for position, channel in enumerate(before.channels.tolist()):
        at[channel].append(position)
    turns: dict[int, int] = defaultdict(int)
    chosen = []
    for channel in place.channels.tolist():
        old = source[channel]
        if turns[old] >= len(at[old]):
            raise NotLegal(f"{place.tensor}: a channel has more entries than before")
        chosen.append(at[old][turns[old]])
        turns[old] += 1
    index = torch.tensor(chosen, device=value.device)
    if len(before.classes) == value.shape[place.axis]:  # else the columns of a grouped layer, of all groups in turn
        return value.index_select(place.axis, index)
    size, part = len(place.classes) // place.groups, len(before.classes) // before.groups
    rows = value.chunk(place.groups)
    return torch.cat([
        rows[number].index_select(place.axis, index[number * size : (number + 1) * size] - number * part)
        for number in range(place.groups)
    ])  # fmt: skip
