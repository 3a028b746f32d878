"""Cut classes of channels: silenced in a copy (masked), or gone from a network of smaller layers (narrowed).

The narrower network is the user's own module with its layers resized, captured again, so its own code computes all
sizes. Each of its channels is filled by the old one that has the same places: see signatures.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from models.graph.capture import capture
from models.graph.channels import Channels, channels
from models.graph.normal import NormalForm
from models.graph.notes import Place

Signature = tuple[frozenset[tuple[str, int, int]], bool, frozenset[int]]
"""Of a class: the tensors, axes and groups' numbers where it lies, whether it is fixed, and its paths."""


class NotLegal(ValueError):
    """Widths that the network cannot have: its code shares channels out otherwise than they were cut."""


def masked(form: NormalForm, found: Channels, dropped: Collection[int]) -> NormalForm:
    """A copy in which all rows of the dropped classes are 0, so that their channels say 0."""
    model = copy.deepcopy(form)
    gone = torch.tensor(sorted(dropped), dtype=torch.int64)
    held = tensors(model)
    with torch.no_grad():
        for place in found.places:
            if place.rows and place.zeroed:
                held[place.tensor].index_fill_(place.axis, torch.isin(place.classes, gone).nonzero()[:, 0], 0)
    return model


def narrowed(model: nn.Module, form: NormalForm, found: Channels, dropped: Collection[int], arch: str) -> NormalForm:
    """The normal form of the narrower network, with the weights that stay.

    Args:
        model: the network that `form` is of; it is copied.

    Raises:
        NotLegal: where the widths that are left are none that its code can have.
        Misdeclared: where a narrower copy cannot be captured: a size stands in its code.
    """
    gone = torch.tensor(sorted(dropped), dtype=torch.int64)
    left = {(p.tensor, p.axis): int((~torch.isin(p.classes, gone)).sum()) for p in found.places}
    small = resized(model, shapes(form, found, left), found.whole)
    new = capture(small, form.captured.picture, arch, check=False)
    fill(new, channels(new, found.whole), form, found, dropped)
    new.captured.whole, new.cfg = found.whole, list(form.cfg)
    return new


def shapes(form: NormalForm, found: Channels, left: Mapping[tuple[str, int], int]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that get smaller, by name in the network itself.

    Args:
        left: of each place (tensor, axis), how many entries stay.

    Raises:
        NotLegal: where nothing stays, or what stays cannot be shared out to groups.
    """
    held = tensors(form)
    result: dict[str, tuple[int, ...]] = {}
    for place in found.places:
        size = left[place.tensor, place.axis]
        if size == len(place.classes):
            continue
        if size % place.groups or not size:
            raise NotLegal(f"{place.tensor}: {size} channels in {place.groups} groups")
        key = form.captured.aliases.get(place.tensor, place.tensor)
        shape = list(result.get(key, held[place.tensor].shape))
        shape[place.axis] = size if place.rows else size // place.groups
        result[key] = tuple(shape)
    return result


def resized(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], whole: Collection[str] = ()) -> nn.Module:
    """A copy of a network with tensors of other shapes, their contents to be filled in, and layers that know of it."""
    model = copy.deepcopy(model)
    before = [*model.parameters(), *model.buffers()]  # kept: the id of a tensor that is gone may be another's
    met: dict[int, Tensor] = {}
    for name, module in model.named_modules():
        for own in (module._parameters, module._buffers):
            for leaf, tensor in own.items():
                key = f"{name}.{leaf}".lstrip(".")
                if tensor is None or (key not in shapes and id(tensor) not in met):
                    continue
                if id(tensor) not in met:
                    new = torch.zeros(shapes[key], dtype=tensor.dtype, device=tensor.device)
                    met[id(tensor)] = (
                        nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
                    )
                own[leaf] = met[id(tensor)]
        _tell(module, name in whole)
    del before
    return model


def _tell(module: nn.Module, whole: bool) -> None:
    """Set the sizes that a layer keeps beside its tensors."""
    if isinstance(module, _BatchNorm):
        parts = (module.weight, module.bias, module.running_mean, module.running_var)
        module.num_features = next((len(part) for part in parts if part is not None), module.num_features)
    weight = module._parameters.get("weight")
    if weight is None:
        return
    if isinstance(module, _ConvNd):
        first, second = weight.shape[:2]
        if whole:
            module.groups = first * module.groups // module.out_channels
        inside, outside = (first, second) if isinstance(module, _ConvTransposeNd) else (second, first)
        if isinstance(module, _ConvTransposeNd):
            module.in_channels, module.out_channels = inside, outside * module.groups
        else:
            module.in_channels, module.out_channels = inside * module.groups, outside
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)


def signatures(found: Channels) -> dict[int, Signature]:
    """Of each class, where it lies. Classes of equal signatures can take each other's places."""
    return {
        cls: (where, cls in found.fixed, found.paths.get(cls, frozenset()))
        for cls, where in _where(found, "classes").items()
    }


def _where(found: Channels, what: str) -> dict[int, frozenset[tuple[str, int, int]]]:
    """Where each class or channel lies: tensor, axis, and number of the group.

    Args:
        what: "classes" or "channels".
    """
    lies: dict[int, set[tuple[str, int, int]]] = defaultdict(set)
    for place in found.places:
        part = len(place.classes) // place.groups
        for position, label in enumerate(getattr(place, what).tolist()):
            lies[label].add((place.tensor, place.axis, position // part))
    return {label: frozenset(where) for label, where in lies.items()}


def fill(new: NormalForm, its: Channels, old: NormalForm, found: Channels, dropped: Collection[int]) -> None:
    """Fill a narrower network from the one that it was cut of, in place.

    Raises:
        NotLegal: where a class of it finds none with its signature, or one is left over.
    """
    source = _channels(its, found, _classes(its, found, dropped))
    places = {(place.tensor, place.axis): place for place in found.places}
    values = {name: tensor.detach() for name, tensor in tensors(old).items()}
    stored = new.state_dict().keys()  # constants of the code are as the narrower network makes them
    for place in its.places:
        before = places[place.tensor, place.axis]
        values[place.tensor] = _gathered(values[place.tensor], place, before, source)
    with torch.no_grad():
        for name, tensor in tensors(new).items():
            if name in stored:
                tensor.copy_(values[name])


def _classes(its: Channels, found: Channels, dropped: Collection[int]) -> dict[int, int]:
    """For each class of a narrower network, the old one that fills it: of those with its signature, in their order."""
    supply, demand = _by_signature(found, dropped), _by_signature(its)
    for signature in {*supply, *demand}:
        if len(supply[signature]) != len(demand[signature]):
            where = sorted(signature[0])[0][0]
            raise NotLegal(f"{where}: {len(demand[signature])} channels of a kind, {len(supply[signature])} kept")
    return {cls: old for s in demand for cls, old in zip(demand[s], supply[s], strict=True)}


def _by_signature(found: Channels, dropped: Collection[int] = ()) -> dict[Signature, list[int]]:
    result: dict[Signature, list[int]] = defaultdict(list)
    for cls, signature in sorted(signatures(found).items()):
        if cls not in dropped:
            result[signature].append(cls)
    return result


def _channels(its: Channels, found: Channels, classes: dict[int, int]) -> dict[int, int]:
    """For each channel of a narrower network, the old one: in the class that fills its class, in their order."""
    mine, theirs = _members(its), _members(found)
    lies, lay = _where(its, "channels"), _where(found, "channels")
    result: dict[int, int] = {}
    for cls, old in classes.items():
        if [lies[channel] for channel in mine[cls]] != [lay[channel] for channel in theirs[old]]:
            where = sorted(lies[mine[cls][0]])[0][0]
            raise NotLegal(f"{where}: channels that are cut together lie otherwise than before")
        result.update(zip(mine[cls], theirs[old], strict=True))
    return result


def _members(found: Channels) -> dict[int, list[int]]:
    """The channels of each class, in order."""
    result: dict[int, set[int]] = defaultdict(set)
    for place in found.places:
        for cls, channel in zip(place.classes.tolist(), place.channels.tolist(), strict=True):
            result[cls].add(channel)
    return {cls: sorted(channels) for cls, channels in result.items()}


def _gathered(value: Tensor, place: Place, before: Place, source: dict[int, int]) -> Tensor:
    """The entries of an axis that its channels need, in their order; of a channel with several, each in its turn."""
    at: dict[int, list[int]] = defaultdict(list)
    for position, channel in enumerate(before.channels.tolist()):
        at[channel].append(position)
    turns: dict[int, int] = defaultdict(int)
    chosen = []
    for channel in place.channels.tolist():
        old = source[channel]
        if turns[old] >= len(at[old]):
            raise NotLegal(f"{place.tensor}: a channel lies there more often than before")
        chosen.append(at[old][turns[old]])
        turns[old] += 1
    index = torch.tensor(chosen, device=value.device)
    if place.rows or place.groups == 1:
        return value.index_select(place.axis, index)
    size, part = len(place.classes) // place.groups, len(before.classes) // before.groups
    rows = value.chunk(place.groups)
    return torch.cat([
        rows[number].index_select(place.axis, index[number * size : (number + 1) * size] - number * part)
        for number in range(place.groups)
    ])  # fmt: skip


def tensors(form: NormalForm) -> dict[str, Tensor]:
    """All tensors by name; those that modules share once."""
    return {**dict(form.named_parameters()), **dict(form.named_buffers())}
