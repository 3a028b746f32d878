"""Which channels of a network stand and fall together: declared by each network, used by pruning and preparation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.errors import UserError


@dataclass(frozen=True)
class Consumer:
    """A convolution or linear layer whose input columns are the channels of a group.

    Args:
        layer: its name.
        shuffle: groups of the ChannelShuffle between the gate and this layer; 1 = none.
        after: given if `layer` is depthwise (one group per unit of its group's channels): a dropped unit takes its
            output rows along, and with them the columns of the 1 x 1 layer named here, which must have a bias.
    """

    layer: str
    shuffle: int = 1
    after: str | None = None


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that a gate scales: the BN `gate` decides, `producer` loses rows, `consumers` lose columns.

    Args:
        unit: so many neighbouring channels stand and fall together; `cfg` counts units.
    """

    gate: str
    producer: str
    consumers: tuple[Consumer, ...]
    unit: int = 1


class Network(nn.Module):
    """What the commands ask of a network. It names types and does nothing: a network of the user's need not inherit it.

    `cfg` holds one width per group (in its units), in the order of `channel_groups()`. `ends` names the layers that
    touch the picture and the classes: they stay float in DoReFa and in ternary or binary networks. `arch_args` holds
    what the building function needs besides `cfg` and `classes`.
    """

    cfg: list[int]
    ends: tuple[str, str]
    arch_args: dict[str, Any]
    channel_groups: Callable[[], list[ChannelGroup]]  # a method; declared like this, hasattr finds real ones alone


def shuffled(width: int, groups: int) -> Tensor:
    """Position that each of `width` channels has after a ChannelShuffle of `groups`: int64 (width,)."""
    channel = torch.arange(width)
    per_group = width // groups
    return (channel % per_group) * groups + channel // per_group


def gates(model: Network) -> list[tuple[str, nn.BatchNorm2d]]:
    """Every gate BN by name, in order; never the output's.

    Raises:
        UserError: exit 2 for a network without any.
    """
    names = [group.gate for group in model.channel_groups()]
    if not names:
        raise UserError(
            "the network declares no channel groups: there is nothing to make sparse or to prune",
            "see channel_groups() in README, 'A network of your own'",
        )
    return [(name, cast(nn.BatchNorm2d, model.get_submodule(name))) for name in names]
