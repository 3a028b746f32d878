"""The plan for a captured network: which classes of channels go. How they are cut: models/graph/narrow.py.

The rule (network slimming, arXiv 1708.06519, made exact): over all classes that can be cut, the floor(percent * total)
of the smallest score go, ties broken by their order in the network; then each family's width moves to the nearest one
that the network can have.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import UserError
from prune.families import Importance, families, scores
from prune.plan import check, to_drop
from prune.widths import Tried, settle


@dataclass(frozen=True)
class ClassPlan:
    """The classes of channels that go.

    Args:
        names, before, widths: of the families.
        dropped: the classes.
        raised: families that would have been emptied and keep their smallest width.
        whole: families that no multiple of `base` fits, or that cannot get narrower.
    """

    names: tuple[str, ...]
    before: tuple[int, ...]
    widths: tuple[int, ...]
    dropped: frozenset[int]
    percent: float
    base: int
    raised: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    @property
    def cfg_before(self) -> list[int]:
        """The widths of the families before."""
        return list(self.before)

    @property
    def cfg(self) -> list[int]:
        """The widths of the families that are left."""
        return list(self.widths)

    @property
    def achieved(self) -> float:
        """The share of the classes that can be cut that really goes."""
        return 1 - sum(self.widths) / sum(self.before)


def plan(network: Tried, percent: float, base: int = 1, importance: Importance = "bn") -> ClassPlan:
    """Choose the classes to drop.

    Args:
        percent: share of the classes that can be cut, in [0, 1).
        base: each family keeps a multiple of this many.

    Raises:
        ValueError: percent outside [0, 1) or base below 1.
        UserError: exit 2 where no class can be cut.
    """
    check(percent, base)
    worth = scores(network.form, network.found, importance)
    chosen = families(network.found, worth)
    if not chosen:
        raise UserError(
            f"{network.arch}: no channels of it can be cut", "a network without batch norms: --importance l1"
        )
    order = sorted((worth[cls], cls) for family in chosen for cls in family.classes)
    gone = {cls for _, cls in order[: to_drop(percent, len(order))]}
    counts = [len(set(family.classes) - gone) for family in chosen]
    needs = settle(network, chosen, counts, base)
    widths = tuple(sum(need.values()) for need in needs)
    dropped = frozenset(
        cls
        for family, need in zip(chosen, needs, strict=True)
        for kind, classes in family.kinds.items()
        for cls in sorted(classes, key=lambda c: (worth[c], c))[: len(classes) - need[kind]]
    )
    before = tuple(len(family.classes) for family in chosen)
    changed = list(zip(chosen, counts, widths, before, strict=True))
    return ClassPlan(
        tuple(family.name for family in chosen), before, widths, dropped, percent, base,
        tuple(f.name for f, count, width, full in changed if count == 0 and width < full),
        tuple(f.name for f, count, width, full in changed if width == full and count < full),
    )  # fmt: skip
