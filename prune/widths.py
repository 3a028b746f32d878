"""The legal widths of a network. If its code splits or shuffles channels, narrower copies are captured to find them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from math import lcm

from torch import nn

from models.check import Misdeclared
from models.graph.channels.classes import Channels, Signature
from models.graph.normal import NormalForm
from models.graph.surgery.copies import fits, its_channels
from models.graph.surgery.resize import NotLegal
from prune.families import Family, entries_by_family
from prune.rounding import by_distance

TRIES = 12
"""Most rounds of trial widths. Families that still have no legal width after them are left whole, and the others are tried again."""

NEARBY = 2
"""Widths to try after the nearest one, for example for code that accepts only even widths."""

FEWEST = 2
"""Fewest channels that pruning leaves in a layer: a capture cannot tell a width of 1 from broadcasting."""

Need = dict[Signature, int]
"""The number of classes to keep of each kind of a family."""


@dataclass(frozen=True)
class Subject:
    """The network on which widths are tried.

    Args:
        model: the network as its code builds it; it is copied.
        form: its normal form.
        found: its classes of channels.
        arch: its name or the path of its code, for messages.
    """

    model: nn.Module
    form: NormalForm
    found: Channels
    arch: str


def settle(network: Subject, chosen: list[Family], counts: list[int], base: int, least: list[int]) -> list[Need]:
    """Return for each family the legal width nearest to the wanted one, as the number of classes to keep of each kind.

    Args:
        counts: the wanted width of each family.
        base: widths are multiples of it.
        least: the smallest allowed width of each family.
    """
    tried = [candidates(*each, base) for each in zip(chosen, counts, least, strict=True)]
    widths = [next(its) for its in tried]
    free = [place for place, family in enumerate(chosen) if family.free and widths[place] < len(family.classes)]
    if free and _kinds(network, chosen, wanted := _only(free, chosen, widths)) is None:
        runs = _runs(network, chosen, wanted)
        for place in free:
            for width in (widths[place], *islice(tried[place], NEARBY), len(chosen[place].classes)):
                widths[place] = width
                if _can(network, chosen, widths, place, runs):
                    break  # if none fits, a size in the code allows only the whole width, the last one tried
    tied = [place for place, family in enumerate(chosen) if not family.free]
    for _ in range(2):
        for _ in range(TRIES):
            needs, wrong = _needs(network, chosen, widths, tied)
            if not wrong:
                return needs
            for place in wrong:
                widths[place] = next(tried[place], len(chosen[place].classes))
        for place in wrong:  # families without a legal width leave the others theirs
            widths[place] = len(chosen[place].classes)
    for place in tied:
        widths[place] = len(chosen[place].classes)
    return _needs(network, chosen, widths, [])[0]


def candidates(family: Family, count: int, least: int, base: int) -> Iterator[int]:
    """Yield widths to try, none below `least` or FEWEST, in order of distance to `count`. The family's present width comes last.

    Of two equally near widths the larger comes first.
    """
    full, step = len(family.classes), lcm(base, family.step)
    least = max(least, FEWEST)
    every = (width for width in range(step, full + 1, step) if width >= least)
    yield from by_distance(count, every)
    yield full


def has_smaller_width(family: Family) -> bool:
    """Return whether the steps of a family's widths leave it a smaller one."""
    return family.step < len(family.classes)


def _needs(network: Subject, chosen: list[Family], widths: list[int], tied: list[int]) -> tuple[list[Need], list[int]]:
    """Return the classes to keep of each family's kinds at these widths, and the tied families with illegal widths."""
    whole = [{kind: len(classes) for kind, classes in family.kinds.items()} for family in chosen]
    needs = [{next(iter(family.kinds)): width} if family.free else whole[n]
             for n, (family, width) in enumerate(zip(chosen, widths, strict=True))]  # fmt: skip
    cut = [place for place in tied if widths[place] < len(chosen[place].classes)]
    if not cut:
        return needs, []
    there = _kinds(network, chosen, widths)
    if there is None:  # at least one of the tied families has an illegal width
        if len(cut) == 1:
            return needs, cut
        runs = _runs(network, chosen, widths)
        wrong = [place for place in cut if not _can(network, chosen, widths, place, runs)]
        return needs, wrong or cut
    wrong = []
    for place in cut:
        needs[place] = {kind: there[kind] for kind in chosen[place].kinds}
        more = any(needs[place][kind] > len(classes) for kind, classes in chosen[place].kinds.items())
        if more or sum(needs[place].values()) != widths[place]:
            wrong.append(place)
    return needs, wrong


def _only(places: list[int], chosen: list[Family], widths: list[int]) -> list[int]:
    """Return the widths of the families at `places`, and whole widths for the others."""
    return [width if place in places else len(chosen[place].classes) for place, width in enumerate(widths)]


def _can(network: Subject, chosen: list[Family], widths: list[int], place: int, runs: bool) -> bool:
    """Return whether this width of one family is legal with all others whole.

    Args:
        runs: whether the code runs with all widths, which are illegal together. Only a capture then shows why.
    """
    alone = _only([place], chosen, widths)
    return _kinds(network, chosen, alone) is not None if runs else _runs(network, chosen, alone)


def _runs(network: Subject, chosen: list[Family], widths: list[int]) -> bool:
    """Return whether the code runs at these widths."""
    sizes = _sizes(network, chosen, widths)
    return sizes is not None and fits(network.model, network.form, network.found, sizes, network.arch)


def _kinds(network: Subject, chosen: list[Family], widths: list[int]) -> Counter[Signature] | None:
    """Count the classes of each signature at these widths. None means that the widths are illegal."""
    sizes = _sizes(network, chosen, widths)
    if sizes is None or not fits(network.model, network.form, network.found, sizes, network.arch):
        return None
    try:
        its = its_channels(network.model, network.form, network.found, sizes, network.arch)
    except (Misdeclared, NotLegal):
        return None
    return Counter(its.signatures.values())


def _sizes(network: Subject, chosen: list[Family], widths: list[int]) -> dict[tuple[str, int], int] | None:
    """Return the size of each axis at these widths, None if one would not be a whole number."""
    share = [*(Fraction(width, len(family.classes)) for family, width in zip(chosen, widths, strict=True)), Fraction(1)]
    sizes = {}
    for place, counts in zip(
        network.found.places, entries_by_family(network.found, [f.classes for f in chosen]), strict=True
    ):
        size = sum((share[number] * int(counts[number]) for number in counts.nonzero()[:, 0].tolist()), Fraction(0))
        if size.denominator > 1:
            return None
        sizes[place.tensor, place.axis] = int(size)
    return sizes
