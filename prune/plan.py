"""Which channels stay: a pure function of scales, percent and base. What is done with it: surgery.py.

The rule (network slimming, arXiv 1708.06519, made exact): over all gates the floor(percent * total) smallest
|gamma| go, ties broken by (|gamma|, layer, index); then each layer's count moves to the nearest legal one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, gcd

import torch
from torch import Tensor

from engine.errors import BAD_CHECKPOINT, UserError
from models.channels import shuffled


@dataclass(frozen=True)
class Gate:
    """What a plan needs to know of one group of channels.

    Args:
        name: the gate BN.
        scales: its gamma, (width,).
        producer_groups: groups of the convolution before it.
        readers: for every grouped consumer (its groups, groups of the shuffle before it).
        unit: so many neighbouring channels stand and fall together.
    """

    name: str
    scales: Tensor
    producer_groups: int = 1
    readers: tuple[tuple[int, int], ...] = ()
    unit: int = 1

    @property
    def width(self) -> int:
        return len(self.scales)

    def positions(self, width: int) -> Tensor:
        """(width, 1 + readers): the producer's group and each reader's group of every channel, at that width."""
        columns = [torch.arange(width) // (width // self.producer_groups)]
        for groups, shuffle in self.readers:
            columns.append(shuffled(width, shuffle) // (width // groups))
        return torch.stack(columns, 1)

    def allowed_widths(self, base: int) -> list[int]:
        """Widths that this gate can shrink to, ascending: multiples of `base` that keep every group equal,
        and for which no cell (producer group, reader groups) needs more channels than it has now.

        A layer narrower than `base` stays whole.
        """
        step = base
        for groups in (self.unit, self.producer_groups, *(value for reader in self.readers for value in reader)):
            step = step * groups // gcd(step, groups)
        if self.producer_groups == 1 and all(reader[0] == 1 for reader in self.readers):
            fits = list(range(step, self.width + 1, step))
        else:
            have = _count(self.positions(self.width))
            fits = [
                width
                for width in range(step, self.width + 1, step)
                if all(need <= have.get(cell, 0) for cell, need in _count(self.positions(width)).items())
            ]
        return fits or [self.width]

    def choose(self, width: int) -> Tensor:
        """The channel that each of `width` places takes: of every cell the largest |gamma|, in index order."""
        if self.unit > 1:  # a unit is as large as the sum of its |gamma|
            units = _ascending(self.scales.abs().reshape(-1, self.unit).sum(1))
            first = units[len(units) - width // self.unit :].sort().values * self.unit
            return (first[:, None] + torch.arange(self.unit)).flatten()
        places, channels = self.positions(width), self.positions(self.width)
        kept = torch.empty(width, dtype=torch.long)
        order = _ascending(self.scales)
        for cell in places.unique(dim=0):
            slots = (places == cell).all(1).nonzero().flatten()
            members = (channels == cell).all(1)
            ranked = order[members[order]]  # ascending scale; ties by index
            kept[slots] = ranked[len(ranked) - len(slots) :].sort().values
        return kept


@dataclass(frozen=True)
class PrunePlan:
    """The channels kept per group.

    Args:
        names: the gates.
        before: their widths.
        kept: for every gate the old channel of each new place, int64.
        units: how many channels of each stand and fall together.
        percent: what was asked for.
        base: the count that widths are multiples of; 1 = any.
        raised: gates that would have been emptied and keep their smallest legal width.
        whole: gates where no multiple of `base` is legal, which stay as they are.
    """

    names: tuple[str, ...]
    before: tuple[int, ...]
    kept: tuple[Tensor, ...]
    units: tuple[int, ...]
    percent: float
    base: int
    raised: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    @property
    def widths(self) -> list[int]:
        return [len(kept) for kept in self.kept]

    @property
    def cfg_before(self) -> list[int]:
        """The cfg of the network as it was."""
        return [width // unit for width, unit in zip(self.before, self.units, strict=True)]

    @property
    def cfg(self) -> list[int]:
        """The cfg of the narrower network."""
        return [width // unit for width, unit in zip(self.widths, self.units, strict=True)]

    @property
    def achieved(self) -> float:
        """The share of channels that really goes."""
        return 1 - sum(self.widths) / sum(self.before)


def plan(gates: list[Gate], percent: float, base: int = 1) -> PrunePlan:
    """Choose the channels to keep.

    Args:
        percent: share of all gated channels to drop, in [0, 1).
        base: every layer keeps a multiple of this many.

    Raises:
        ValueError: percent outside [0, 1) or base < 1.
        UserError: exit 3 if a scale is not finite.
    """
    check(percent, base)
    for gate in gates:
        if not torch.isfinite(gate.scales).all():
            raise UserError(f"{gate.name} has scales that are not finite", "take an earlier file", BAD_CHECKPOINT)
    every = torch.cat([gate.scales for gate in gates])
    owner = torch.cat([torch.full((gate.width,), n) for n, gate in enumerate(gates)])
    drop = to_drop(percent, len(every))
    wanted = torch.bincount(owner[_ascending(every)[drop:]], minlength=len(gates)).tolist()
    choices, raised, whole = [], [], []
    for gate, count in zip(gates, wanted, strict=True):
        legal = gate.allowed_widths(base)
        width = nearest(count, legal)
        if width % base:
            whole.append(gate.name)
        elif count == 0:
            raised.append(gate.name)
        choices.append(gate.choose(width))
    return PrunePlan(
        tuple(gate.name for gate in gates),
        tuple(gate.width for gate in gates),
        tuple(choices), tuple(gate.unit for gate in gates), percent, base, tuple(raised), tuple(whole),
    )  # fmt: skip


def check(percent: float, base: int) -> None:
    """Refuse numbers that no plan can have.

    Raises:
        ValueError: percent outside [0, 1) or base below 1.
    """
    if not 0 <= percent < 1 or base < 1:
        raise ValueError(f"percent {percent} is not in [0, 1), or base {base} is below 1")


def to_drop(percent: float, total: int) -> int:
    """How many of all channels go; 0.3 of 10 are 3, whatever 0.3 * 10 is in binary."""
    return floor(percent * total + 1e-9)


def by_distance(count: int, legal: Iterable[int]) -> list[int]:
    """Legal widths, the closest to `count` first; of two equally close ones the larger."""
    return sorted(legal, key=lambda width: (abs(width - count), -width))


def nearest(count: int, legal: list[int]) -> int:
    """The legal width closest to `count`; of two equally close ones the larger."""
    return by_distance(count, legal)[0]


def _ascending(scales: Tensor) -> Tensor:
    """Indices from the smallest |gamma| up; equal ones in their order."""
    return scales.double().abs().sort(stable=True).indices


def _count(cells: Tensor) -> dict[tuple[int, ...], int]:
    rows, counts = cells.unique(dim=0, return_counts=True)
    return {tuple(row): count for row, count in zip(rows.tolist(), counts.tolist(), strict=True)}
