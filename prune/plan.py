"""The plan for a captured network: which classes of channels go. How they are cut: models/graph/surgery/narrow.py.

The rule (network slimming, arXiv 1708.06519, made exact): over all classes that can be cut, the floor(percent * total)
of the smallest score go, ties broken by their order in the network; then each family's width moves to the nearest one
that the network can have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite, lcm

from engine.errors import BAD_CHECKPOINT, UserError
from models import registry
from models.graph.channels.classes import Channels
from prune.families import Family, families, scores, stays
from prune.options import Importance
from prune.rounding import check, to_drop
from prune.widths import Need, Subject, candidates, settle


@dataclass(frozen=True)
class PrunePlan:
    """The classes of channels that go.

    Args:
        names, before, widths: of the families.
        units: for one of a cfg, how many of a family; see registry.unit.
        dropped: the classes.
        stays: why other classes cannot be cut, by class.
        others: for each family how many layers, besides the one that it is named after, make its channels.
        raised: families that would have been emptied and keep their smallest width.
        whole: families that no multiple of `base` fits.
        limited: families of which more would have gone than the limit lets go.
        rounded: families that would have lost channels, and whose nearest width is the one that they have.
        stuck: families that would have lost channels, and that the network's code lets have no smaller width.
    """

    names: tuple[str, ...]
    before: tuple[int, ...]
    widths: tuple[int, ...]
    units: tuple[int, ...]
    dropped: frozenset[int]
    percent: float
    base: int
    stays: Mapping[int, str]
    others: tuple[int, ...] = ()
    raised: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    limited: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()

    @property
    def cfg_before(self) -> list[int]:
        """The widths of the families before."""
        return [width // unit for width, unit in zip(self.before, self.units, strict=True)]

    @property
    def cfg(self) -> list[int]:
        """The widths of the families that are left."""
        return [width // unit for width, unit in zip(self.widths, self.units, strict=True)]

    @property
    def achieved(self) -> float:
        """The share of the classes that can be cut that really goes."""
        return 1 - sum(self.widths) / sum(self.before)


def plan(network: Subject, percent: float, base: int = 1, importance: Importance = "bn", limit: float = 1) -> PrunePlan:
    """Choose the classes to drop.

    Args:
        percent: share of the classes that can be cut, in [0, 1).
        base: each family keeps a multiple of this many.
        limit: share of its classes that a family may lose, in (0, 1]. What it keeps is not dropped elsewhere.

    Raises:
        ValueError: percent outside [0, 1), limit outside (0, 1], or base below 1.
        UserError: exit 2 where no class can be cut, exit 3 where a score is not finite.
    """
    check(percent, base)
    if not 0 < limit <= 1:
        raise ValueError(f"limit {limit} is not in (0, 1]")
    worth = scores(network.form, network.found, importance)
    chosen = families(network.found, worth)
    units = tuple(registry.unit(network.arch, family.name) for family in chosen)
    chosen = [replace(family, step=lcm(family.step, unit)) for family, unit in zip(chosen, units, strict=True)]
    if not chosen:
        raise UserError(f"{network.arch}: no channels of it can be cut", _why_none(network.found, importance))
    if bad := [family.name for family in chosen if not all(isfinite(worth[cls]) for cls in family.classes)]:
        raise UserError(f"{bad[0]} has scores that are not finite", "take an earlier file", BAD_CHECKPOINT)
    order = sorted((worth[cls], cls) for family in chosen for cls in family.classes)
    gone = {cls for _, cls in order[: to_drop(percent, len(order))]}
    counts = [len(set(family.classes) - gone) for family in chosen]
    full = [len(family.classes) for family in chosen]
    least = [size - to_drop(limit, size) for size in full]
    needs = settle(network, chosen, counts, base, least)
    widths = tuple(sum(need.values()) for need in needs)
    nearest = [next(candidates(*each, base)) for each in zip(chosen, counts, least, strict=True)]
    states = [*map(_state, counts, least, full, widths, nearest, [base] * len(full))]
    named = {kind: tuple(f.name for f, state in zip(chosen, states, strict=True) if state == kind) for kind in STATES}
    return PrunePlan(
        tuple(family.name for family in chosen), tuple(full), widths, units, _lowest(chosen, needs, worth), percent, base,
        stays(network.found, worth, importance), tuple(len(family.others) for family in chosen), **named
    )  # fmt: skip


def _why_none(found: Channels, importance: Importance) -> str:
    """What to do about a network of which nothing can be cut."""
    if "spared" in found.fixed.values():
        return "name fewer layers after --spare"
    if importance == "bn":
        return "a network without batch norms: --importance l1"
    return "all its channels are fixed, for the reasons above"


STATES = ("raised", "whole", "limited", "rounded", "stuck")


def _state(count: int, least: int, full: int, width: int, nearest: int, base: int) -> str:
    """What kept a family from the width that its scores ask for: one of STATES, or nothing worth a word.

    Args:
        count: that its scores ask for.
        least: that the limit leaves.
        full, width: before and after.
        nearest: the legal width next to `count`.
    """
    if width == full > count:
        if nearest < full:
            return "stuck"
        return "whole" if full % base else "limited" if count < least else "rounded"
    return "limited" if count < least else "raised" if count == 0 else ""


def _lowest(chosen: list[Family], needs: list[Need], worth: dict[int, float]) -> frozenset[int]:
    """The classes to drop: of each kind those worth least, ties broken by their order in the network."""
    return frozenset(
        cls
        for family, need in zip(chosen, needs, strict=True)
        for kind, classes in family.kinds.items()
        for cls in sorted(classes, key=lambda c: (worth[c], c))[: len(classes) - need[kind]]
    )
