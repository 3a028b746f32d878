"""A plan carried out: as a mask over the old network, or as a new, narrower one. Both must compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import UserError
from models import check
from models.channels import ChannelGroup, Network, shuffled
from prune.plan import Gate, PrunePlan
from prune.sparsity import gammas

Build = Callable[[list[int]], Network]


def gates_of(model: Network) -> list[Gate]:
    """The gates of a network, ready to be planned with."""
    found = []
    for group, scales in zip(model.channel_groups(), gammas(model), strict=True):
        producer = _conv(model, group.producer)
        readers = [(c.layer, c.shuffle) for c in group.consumers if c.after is None]
        grouped = [(_groups(model, layer), shuffle) for layer, shuffle in readers]
        found.append(
            Gate(
                group.gate,
                scales,
                producer.groups,
                tuple(reader for reader in grouped if reader != (1, 1)),
                group.unit,
            )
        )
    return found


def masked(model: Network, plan: PrunePlan) -> Network:
    """A copy in which dropped channels are silent: gamma and beta of their gates are 0."""
    model = copy.deepcopy(model)
    for name, before, kept in zip(plan.names, plan.before, plan.kept, strict=True):
        gate = cast(nn.BatchNorm2d, model.get_submodule(name))
        dropped = torch.ones(before, dtype=torch.bool)
        dropped[kept] = False
        with torch.no_grad():
            for tensor in (gate.weight, gate.bias):
                tensor[dropped.to(tensor.device)] = 0
    return model


def sliced(model: Network, plan: PrunePlan, build: Build) -> Network:
    """A narrower network that inherits the weights of the kept channels; groups and shuffles stay.

    Args:
        build: makes a fresh network of the same architecture with the given widths.

    Raises:
        UserError: exit 2 if what is left of some layer is not what the narrower network has there.
    """
    state = {key: value.clone() for key, value in model.state_dict().items()}
    groups = model.channel_groups()
    for group, before, kept in zip(groups, plan.before, plan.kept, strict=True):
        _take(state, group.producer, 0, kept, ("weight", "bias"))
        _take(state, group.gate, 0, kept, ("weight", "bias", "running_mean", "running_var"))
        for consumer in group.consumers:
            if consumer.after:
                _take_depthwise(
                    state, consumer.layer, consumer.after, before // group.unit, kept[:: group.unit] // group.unit
                )
            else:
                _take_columns(state, model, consumer.layer, consumer.shuffle, before, kept)
    like = next(model.parameters())
    small = build(plan.cfg).to(like.device, like.dtype)
    wanted = {key: tuple(value.shape) for key, value in small.state_dict().items()}
    left = {key: tuple(value.shape) for key, value in state.items()}
    for key in {**wanted, **left}:
        if wanted.get(key) != left.get(key):
            raise _unlike(groups, key, wanted.get(key), left.get(key))
    small.load_state_dict(state)
    return small.train(model.training)


def _unlike(
    groups: list[ChannelGroup], key: str, wanted: tuple[int, ...] | None, left: tuple[int, ...] | None
) -> UserError:
    """The fault of a tensor that the groups have not brought to the shape of the narrower network."""
    layer = key.rpartition(".")[0]
    shapes = f"{key} is {wanted} in the narrower network, {left} is left"
    known = {n for g in groups for n in (g.gate, g.producer, *(c.layer for c in g.consumers))}
    return misdescribed(shapes if layer in known else f"no group names {layer} as a consumer; {shapes}")


def misdescribed(what: str) -> UserError:
    """The fault of channel groups that are not those of the network."""
    return UserError(
        f"the declared channel groups do not describe the network: {what}",
        "name every layer that reads the channels, and activate by a function that keeps 0 (ReLU, SiLU, no Sigmoid); "
        + check.SEE,
    )


def _take(state: dict[str, Tensor], layer: str, axis: int, kept: Tensor, names: Sequence[str]) -> None:
    for name in names:
        key = f"{layer}.{name}"
        if key in state:
            state[key] = state[key].index_select(axis, kept.to(state[key].device))


def _take_depthwise(state: dict[str, Tensor], layer: str, after: str, before: int, kept: Tensor) -> None:
    """Rows of a depthwise layer follow its input channels, and so do the columns of the 1 x 1 layer that reads them.

    A silent channel still gives its bias: what the 1 x 1 layer makes of it moves into that layer's bias.
    """
    rows = len(state[f"{layer}.weight"]) // before
    spread = (kept[:, None] * rows + torch.arange(rows)).flatten()
    if f"{layer}.bias" in state:
        silent = state[f"{layer}.bias"].clone()
        silent[spread.to(silent.device)] = 0
        state[f"{after}.bias"] = state[f"{after}.bias"] + state[f"{after}.weight"].flatten(1) @ silent
    _take(state, layer, 0, spread, ("weight", "bias"))
    _take(state, after, 1, spread, ("weight",))


def _take_columns(
    state: dict[str, Tensor], model: nn.Module, layer: str, shuffle: int, before: int, kept: Tensor
) -> None:
    """Columns of a (grouped) consumer, gathered in the order in which the narrower shuffle delivers them."""
    groups, width = _groups(model, layer), len(kept)
    source = torch.empty(width, dtype=torch.long)
    source[shuffled(width, shuffle)] = shuffled(before, shuffle)[kept]  # new position -> old position
    columns = source.reshape(groups, width // groups) % (before // groups)  # within each group
    key = f"{layer}.weight"
    weight = state[key]
    rows = weight.reshape(groups, -1, *weight.shape[1:])
    picked = [part[:, index.to(weight.device)] for part, index in zip(rows, columns, strict=True)]
    state[key] = torch.cat(picked)


def _conv(model: nn.Module, name: str) -> nn.Conv2d:
    return cast(nn.Conv2d, model.get_submodule(name))


def _groups(model: nn.Module, name: str) -> int:
    return getattr(model.get_submodule(name), "groups", 1)  # a linear layer has none
