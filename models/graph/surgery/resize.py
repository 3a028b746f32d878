"""Resizing of layers: the tensor shapes of a narrower network, and a copy of a module with these shapes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from engine.checkpoint.words import counted
from models.graph.channels.classes import Channels
from models.graph.normal import NormalForm


class NotLegal(ValueError):
    """Widths that the network cannot have: its code splits channels in another way than they were cut."""


def shapes(form: NormalForm, found: Channels, left: Mapping[tuple[str, int], int]) -> dict[str, tuple[int, ...]]:
    """Return the new shapes of the tensors that get smaller, by their names in the captured network.

    Args:
        left: the number of entries that stay, by tensor and axis.

    Raises:
        NotLegal: if no entry stays, or the entries cannot be divided into the groups.
    """
    held = tensors(form)
    result: dict[str, tuple[int, ...]] = {}
    for place in found.places:
        size = left[place.tensor, place.axis]
        if size == len(place.classes):
            continue
        if size % place.groups or not size:
            raise NotLegal(f"{place.tensor}: {counted(size, 'channel')} in {counted(place.groups, 'group')}")
        key = form.captured.aliases.get(place.tensor, place.tensor)
        shape = list(result.get(key, held[place.tensor].shape))
        # an axis of a grouped layer holds the channels of all its groups, or those of each
        shape[place.axis] = shape[place.axis] * size // len(place.classes)
        result[key] = tuple(shape)
    return result


def resized(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], whole: Collection[str] = ()) -> nn.Module:
    """Return a copy of a network with tensors of other shapes, filled with 0, and layers of matching sizes.

    Args:
        shapes: by any name of each tensor.
        whole: names of grouped convolutions that lose whole groups.

    Raises:
        NotLegal: if two names of one tensor have different shapes.
    """
    model = _copied(model)
    wanted = _by_tensor(model, shapes)
    apart = {id(module) for name, module in model.named_modules(remove_duplicate=False) if name in whole}
    before = [*model.parameters(), *model.buffers()]  # keep them alive: a new tensor could reuse a freed one's id
    met: dict[int, Tensor] = {}
    for module in model.modules():
        parts: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for own in parts:
            for leaf, tensor in own.items():
                if tensor is None or id(tensor) not in wanted:
                    continue
                if id(tensor) not in met:
                    new = torch.zeros(wanted[id(tensor)], dtype=tensor.dtype, device=tensor.device)
                    met[id(tensor)] = (
                        nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
                    )
                own[leaf] = met[id(tensor)]
        _tell(module, id(module) in apart)
    del before
    return model


def _by_tensor(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Return the new shapes by the ids of the tensors. A tensor may have several names, as a wrapped or tied module has.

    Raises:
        NotLegal: if two names of one tensor have different shapes.
    """
    found: dict[int, tuple[str, tuple[int, ...]]] = {}
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        if name in shapes:
            other, shape = found.setdefault(id(tensor), (name, shapes[name]))
            if shape != shapes[name]:
                raise NotLegal(f"{name} has shape {shapes[name]}, {other} has shape {shape}, and both are one tensor")
    return {held: shape for held, (_, shape) in found.items()}


def _copied(model: nn.Module) -> nn.Module:
    """Return a copy. Values that the code has computed and kept are copied as numbers: torch refuses to copy their graph.

    torch.nn.utils.weight_norm keeps a layer's weight like that, and some code keeps its last maps.
    """
    kept = (leaf for module in model.modules() for leaf in tree_leaves(vars(module)))
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in kept if isinstance(t, Tensor) and not t.is_leaf})


def _tell(module: nn.Module, whole: bool) -> None:
    """Set the sizes that a layer stores as attributes."""
    if isinstance(module, _BatchNorm):
        parts = (module.weight, module.bias, module.running_mean, module.running_var)
        module.num_features = next((len(part) for part in parts if part is not None), module.num_features)
    weight = module._parameters.get("weight")
    if weight is None:
        return
    if isinstance(module, _ConvNd):
        first, second = weight.shape[:2]
        if isinstance(module, _ConvTransposeNd):
            module.groups = first * module.groups // module.in_channels if whole else module.groups
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            module.groups = first * module.groups // module.out_channels if whole else module.groups
            module.in_channels, module.out_channels = second * module.groups, first
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)


def tensors(form: NormalForm) -> dict[str, Tensor]:
    """Return all tensors by name, with shared tensors once."""
    return {**dict(form.named_parameters()), **dict(form.named_buffers())}
