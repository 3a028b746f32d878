"""Families of channels, the classes that share one width, and the scores of classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from math import gcd, lcm

import torch
from torch import Tensor

from models.graph.channels.classes import Channels, Signature
from models.graph.normal import NormalForm
from prune.options import Importance


@dataclass(frozen=True)
class Family:
    """The classes of channels that one width counts.

    Args:
        name: the layer that makes the channels; the first one if several layers write to one stream.
        kinds: the classes of each signature, ascending. Classes of one kind are interchangeable.
        step: widths are multiples of it.
        others: the other layers that make the channels.
    """

    name: str
    kinds: dict[Signature, list[int]]
    step: int
    others: tuple[str, ...] = ()

    @cached_property
    def classes(self) -> list[int]:
        """All classes of the family, ascending."""
        return sorted(cls for kind in self.kinds.values() for cls in kind)

    @property
    def free(self) -> bool:
        """Whether any width is legal: no layer splits these channels into parts."""
        return len(self.kinds) == 1 and self.step == 1


def families(found: Channels, scores: dict[int, float]) -> list[Family]:
    """Return the families that can be cut, in graph order: all their classes have a score and none is fixed."""
    kind_of, number = found.signatures, _numbered(found)
    classes: dict[int, list[int]] = defaultdict(list)
    for cls in sorted(number):
        classes[number[cls]].append(cls)
    makers: dict[int, dict[str, None]] = defaultdict(dict)
    for place in found.places:
        if place.makes:
            makers[number[int(place.classes[0])]][place.tensor.rpartition(".")[0]] = None
    names, members = [], []
    for place in found.places:
        its = classes.pop(number[int(place.classes[0])], []) if place.makes else []
        if its and all(cls in scores and cls not in found.fixed for cls in its):
            names.append([*makers[number[its[0]]]])
            members.append(its)
    result = []
    for (name, *others), its, step in zip(names, members, _steps(found, members), strict=True):
        kinds: dict[Signature, list[int]] = defaultdict(list)
        for cls in its:
            kinds[kind_of[cls]].append(cls)
        result.append(Family(name, dict(kinds), step, tuple(others)))
    return result


def stays(found: Channels, scores: dict[int, float], importance: Importance) -> dict[int, str]:
    """Return why channels made by a layer cannot be cut, by class, for all classes outside the families."""
    unscored = (
        "no batch norm scales them (--importance l1 goes by weights)" if importance == "bn" else "no layer makes them"
    )
    free = {cls for family in families(found, scores) for cls in family.classes}
    made = {cls: None for place in found.places if place.makes for cls in place.classes.tolist() if cls not in free}
    together = "they go together with channels that stay"
    return {cls: found.fixed.get(cls, together if cls in scores else unscored) for cls in made}


def rows(found: Channels) -> dict[int, int]:
    """Return how many channels each class counts for, if not for one: an operation mixes channels of one layer.

    Channels that are cut together, two of each, count once, as in the widths of families.
    """
    most: dict[int, int] = {}
    for place in found.places:
        counts = Counter(place.classes.tolist()) if place.makes else {}
        if len({*counts.values()}) > 1 or len(counts) == 1:
            most |= {cls: max(most.get(cls, 1), count) for cls, count in counts.items()}
    return most


def _numbered(found: Channels) -> dict[int, int]:
    """Return the family number of each class. One layer's output, or channels split together, form one family."""
    number: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    for place in found.places:
        for cls in place.classes.tolist():
            if cls not in number:
                number[cls], members[cls] = cls, [cls]
    for together in (*(place.classes.tolist() for place in found.places if place.makes), *found.shared):
        into, *others = dict.fromkeys(number[cls] for cls in together if cls in number)
        for other in others:
            for cls in members.pop(other):
                number[cls] = into
                members[into].append(cls)
    return number


def _steps(found: Channels, members: list[list[int]]) -> list[int]:
    """Return the step of each family's width: each axis keeps a whole number of its channels, equal in every group."""
    steps = [1] * len(members)
    for place, counts in zip(found.places, entries_by_family(found, members), strict=True):
        for number in counts[:-1].nonzero()[:, 0].tolist():
            parts = len(members[number]) * place.groups
            steps[number] = lcm(steps[number], parts // gcd(int(counts[number]), parts))
    return steps


def entries_by_family(found: Channels, members: list[list[int]]) -> list[Tensor]:
    """Count the entries of each place by family.

    Args:
        members: the classes of each family.

    Returns:
        For each place one int64 tensor (families + 1,); the last number counts entries of no family.
    """
    last = max((int(place.classes.max()) for place in found.places), default=0)
    family = torch.full((last + 1,), len(members))
    for number, its in enumerate(members):
        family[its] = number
    return [torch.bincount(family[place.classes], minlength=len(members) + 1) for place in found.places]


def scores(form: NormalForm, found: Channels, importance: Importance = "bn") -> dict[int, float]:
    """Return the score of each class. Pruning drops the lowest first.

    Args:
        importance: bn: the mean |gamma| of its gates (arXiv 1708.06519); l1: the mean |w| of its rows (arXiv 1608.08710).
    """
    tensors = dict(form.named_parameters())
    total: dict[int, float] = defaultdict(float)
    count: dict[int, int] = defaultdict(int)
    for place in found.places:
        if place.norm if importance == "bn" else place.makes:
            size = _sizes(tensors[place.tensor].detach(), place.axis)
            for cls, value in zip(place.classes.tolist(), size.tolist(), strict=True):
                total[cls] += value
                count[cls] += 1
    return {cls: value / count[cls] for cls, value in total.items()}


def _sizes(tensor: Tensor, axis: int) -> Tensor:
    """Return the mean absolute value of each entry of an axis, float64 (entries,) on the CPU."""
    return tensor.double().abs().movedim(axis, 0).reshape(tensor.shape[axis], -1).mean(1).cpu()
