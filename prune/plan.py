"""The plan for a captured network: which classes of channels to drop. models/graph/surgery/narrow.py drops them.

The rule is network slimming (arXiv 1708.06519), made exact. Of all classes that can be cut, drop the
floor(percent * total) with the smallest scores; ties go by their order in the network. Then move each family's width
to the nearest legal one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import isfinite, lcm

from engine.cli.archs import is_users_code
from engine.errors import BAD_CHECKPOINT, UserError
from models import registry
from models.graph.channels.classes import Channels
from models.graph.normal import NormalForm
from prune.computed import computed_channels
from prune.families import Family, families, rows, scores, stays
from prune.options import Importance
from prune.rounding import check, to_drop
from prune.sparsity import by_weights
from prune.widths import FEWEST, Need, Subject, candidates, has_smaller_width, settle

ROUNDS = 3
"""Most times that the share is chosen among families whose code allows a smaller width."""


@dataclass(frozen=True)
class PrunePlan:
    """The classes of channels to drop.

    Args:
        names, before, widths: name, old width and new width of each family.
        units: classes of each family per 1 in the cfg; see registry.unit.
        dropped: the classes to drop.
        stays: why other classes cannot be cut, by class.
        computed: channels that stay beyond the classes of `stays`: without a class (prune.computed), or several in one.
        others: number of layers, besides the one in `names`, that make each family's channels.
        raised: families that would have kept fewer channels than widths.FEWEST and keep their smallest legal width.
        whole: families left whole because no multiple of `base` fits.
        limited: families that would have lost more than the limit allows.
        rounded: families that would have lost channels but whose nearest legal width is the present one.
        stuck: families whose code allows no smaller width: for any request, or none near the one that they would have had.
    """

    names: tuple[str, ...]
    before: tuple[int, ...]
    widths: tuple[int, ...]
    units: tuple[int, ...]
    dropped: frozenset[int]
    percent: float
    base: int
    stays: Mapping[int, str]
    computed: int = 0
    others: tuple[int, ...] = ()
    raised: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    limited: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()

    @property
    def cfg_before(self) -> list[int]:
        """The cfg before pruning."""
        return [width // unit for width, unit in zip(self.before, self.units, strict=True)]

    @property
    def cfg(self) -> list[int]:
        """The cfg after pruning."""
        return [width // unit for width, unit in zip(self.widths, self.units, strict=True)]

    @property
    def achieved(self) -> float:
        """The share of the cuttable classes that is dropped."""
        return 1 - (self.cuttable - len(self.dropped)) / self.cuttable if self.cuttable else 0.0

    @property
    def cuttable(self) -> int:
        """The number of classes that can be cut, of families whose code allows a smaller width."""
        return sum(size for name, size in zip(self.names, self.before, strict=True) if name not in self.stuck)


def plan(network: Subject, percent: float, base: int = 1, importance: Importance = "bn", limit: float = 1) -> PrunePlan:
    """Choose the classes to drop.

    Args:
        percent: share of the cuttable classes to drop, in [0, 1).
        base: each family's new width is a multiple of it.
        limit: share of its classes that a family may lose, in (0, 1]. Other families do not lose more instead.

    Raises:
        ValueError: percent outside [0, 1), limit outside (0, 1], or base below 1.
        UserError: exit 2 if no class can be cut, exit 3 if a score is not finite.
    """
    check(percent, base)
    if not 0 < limit <= 1:
        raise ValueError(f"limit {limit} is not in (0, 1]")
    worth = scores(network.form, network.found, importance)
    chosen = families(network.found, worth)
    units = tuple(registry.unit(network.arch, family.name) for family in chosen)
    chosen = [replace(family, step=lcm(family.step, unit)) for family, unit in zip(chosen, units, strict=True)]
    if not chosen:
        raise nothing_to_cut(network.arch, network.form, network.found, importance)
    if bad := [family.name for family in chosen if not all(isfinite(worth[cls]) for cls in family.classes)]:
        raise UserError(f"{bad[0]} has non-finite scores", "prune an earlier file", BAD_CHECKPOINT)
    full = [len(family.classes) for family in chosen]
    least = [size - to_drop(limit, size) for size in full]
    rigid = {n for n, family in enumerate(chosen) if not has_smaller_width(family)}
    counts, needs = _settled(network, chosen, worth, percent, base, least, rigid)
    widths = tuple(sum(need.values()) for need in needs)
    nearest = [next(candidates(*each, base)) for each in zip(chosen, counts, least, strict=True)]
    states = [*map(_state, counts, least, full, widths, nearest, [base] * len(full))]
    states = ["stuck" if n in rigid else state for n, state in enumerate(states)]
    named = {kind: tuple(f.name for f, state in zip(chosen, states, strict=True) if state == kind) for kind in STATES}
    left, many = stays(network.found, worth, importance), rows(network.found)
    more = sum(computed_channels(network.form).values()) + sum(many.get(cls, 1) - 1 for cls in left)
    return PrunePlan(
        tuple(family.name for family in chosen), tuple(full), widths, units, _lowest(chosen, needs, worth), percent, base,
        left, more, tuple(len(family.others) for family in chosen), **named
    )  # fmt: skip


def _settled(
    network: Subject, chosen: list[Family], worth: dict[int, float], percent: float, base: int, least: list[int],
    rigid: Collection[int],
) -> tuple[list[int], list[Need]]:  # fmt: skip
    """Return the width of each family that the scores ask for, and the classes to keep of each of its kinds.

    A family whose code allows no smaller width has no channel that can be cut, so the share is chosen again among the others.
    Of the toolkit's own code, the steps of widths tell it: there, other families without a legal width are held by each other.

    Args:
        rigid: families without a smaller width.
    """
    full = [len(family.classes) for family in chosen]
    asked = {n: full[n] for n in rigid}
    for _ in range(ROUNDS if is_users_code(network.arch) else 1):
        order = sorted((worth[cls], cls) for n, family in enumerate(chosen) if n not in asked for cls in family.classes)
        gone = {cls for _, cls in order[: to_drop(percent, len(order))]}
        counts = [len(set(family.classes) - gone) for family in chosen]
        needs = settle(network, chosen, counts, base, least)
        stuck = {
            n: count
            for n, (count, need) in enumerate(zip(counts, needs, strict=True))
            if sum(need.values()) == full[n] > count and next(candidates(chosen[n], count, least[n], base)) < full[n]
        }
        asked |= stuck
        if not stuck or len(asked) == len(chosen):
            break
    return [asked.get(n, count) for n, count in enumerate(counts)], needs


def nothing_to_cut(arch: str, form: NormalForm, found: Channels, importance: Importance) -> UserError:
    """Return the error for a network without any channel to cut."""
    hint = "read the notices above: they say why each channel stays"
    if "spared" in found.fixed.values():
        hint = "name fewer layers after --spare"
    elif importance == "bn" and families(found, scores(form, found, "l1")):
        hint = by_weights()
    return UserError(f"{arch}: none of its channels can be cut", hint)


STATES = ("raised", "whole", "limited", "rounded", "stuck")


def _state(count: int, least: int, full: int, width: int, nearest: int, base: int) -> str:
    """Return why a family did not get the width that its scores ask for: one of STATES, or "" if only rounding did it.

    Args:
        count: the width that its scores ask for.
        least: the smallest width that the limit allows.
        full, width: the widths before and after.
        nearest: the legal width nearest to `count`.
        base: --normal_regular.
    """
    if width == full > count:
        if nearest < full:
            return "stuck"
        return "whole" if full % base else "limited" if count < least else "raised" if count < FEWEST else "rounded"
    return "limited" if count < least else "raised" if count < FEWEST <= width else ""


def _lowest(chosen: list[Family], needs: list[Need], worth: dict[int, float]) -> frozenset[int]:
    """Return the classes to drop: the lowest scores of each kind, ties by their order in the network."""
    return frozenset(
        cls
        for family, need in zip(chosen, needs, strict=True)
        for kind, classes in family.kinds.items()
        for cls in sorted(classes, key=lambda c: (worth[c], c))[: len(classes) - need[kind]]
    )
