"""Which widths a network can have: tried by capturing narrower copies, where its code shares channels out."""

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
from prune.families import Family, counted
from prune.rounding import by_distance

TRIES = 12
"""Narrower copies that are captured at most before families that still cannot have their width are left whole."""

NEARBY = 2
"""Widths that are tried, after the nearest one, of a layer whose code asks for even ones, say."""

Need = dict[Signature, int]
"""Of each kind of a family, how many classes stay."""


@dataclass(frozen=True)
class Subject:
    """What widths are tried on.

    Args:
        model: the network as its code makes it; it is copied.
        form: its normal form.
        found: its classes of channels.
    """

    model: nn.Module
    form: NormalForm
    found: Channels
    arch: str


def settle(network: Subject, chosen: list[Family], counts: list[int], base: int, least: list[int]) -> list[Need]:
    """For each family the nearest width to what is wanted that the network can have, as its kinds need it.

    Args:
        counts: what is wanted of each.
        base: widths are multiples of it.
        least: what each keeps at least.
    """
    tried = [candidates(*each, base) for each in zip(chosen, counts, least, strict=True)]
    widths = [next(its) for its in tried]
    free = [place for place, family in enumerate(chosen) if family.free and widths[place] < len(family.classes)]
    if free and _kinds(network, chosen, _only(free, chosen, widths)) is None:
        for place in free:
            for width in (widths[place], *islice(tried[place], NEARBY), len(chosen[place].classes)):
                widths[place] = width
                if _can(network, chosen, widths, place):
                    break  # else a size stands in the code, which fits the whole width alone
    tied = [place for place, family in enumerate(chosen) if not family.free]
    for _ in range(TRIES):
        needs, wrong = _needs(network, chosen, widths, tied)
        if not wrong:
            return needs
        for place in wrong:
            widths[place] = next(tried[place], len(chosen[place].classes))
    for place in tied:
        widths[place] = len(chosen[place].classes)
    return _needs(network, chosen, widths, [])[0]


def candidates(family: Family, count: int, least: int, base: int) -> Iterator[int]:
    """Widths to try, none below `least`: the nearest to `count` first, of two equally near ones the larger, the family's
    own last.
    """
    full, step = len(family.classes), lcm(base, family.step)
    least = max(least, 2)  # a width of 1 cannot be told from broadcasting
    every = (width for width in range(step, full + 1, step) if width >= least)
    yield from by_distance(count, every)
    yield full


def _needs(network: Subject, chosen: list[Family], widths: list[int], tied: list[int]) -> tuple[list[Need], list[int]]:
    """What each family's kinds need at these widths, and the tied families that cannot have them."""
    whole = [{kind: len(classes) for kind, classes in family.kinds.items()} for family in chosen]
    needs = [{next(iter(family.kinds)): width} if family.free else whole[n]
             for n, (family, width) in enumerate(zip(chosen, widths, strict=True))]  # fmt: skip
    cut = [place for place in tied if widths[place] < len(chosen[place].classes)]
    if not cut:
        return needs, []
    there = _kinds(network, chosen, widths)
    if there is None:  # one of them, or several, stand in the way of all
        if len(cut) == 1:
            return needs, cut
        wrong = [place for place in cut if not _can(network, chosen, widths, place)]
        return needs, wrong or cut
    wrong = []
    for place in cut:
        needs[place] = {kind: there[kind] for kind in chosen[place].kinds}
        more = any(needs[place][kind] > len(classes) for kind, classes in chosen[place].kinds.items())
        if more or sum(needs[place].values()) != widths[place]:
            wrong.append(place)
    return needs, wrong


def _only(places: list[int], chosen: list[Family], widths: list[int]) -> list[int]:
    """These widths of some families, the others whole."""
    return [width if place in places else len(chosen[place].classes) for place, width in enumerate(widths)]


def _can(network: Subject, chosen: list[Family], widths: list[int], place: int) -> bool:
    """Whether the code runs with this width of one family, the others whole."""
    sizes = _sizes(network, chosen, _only([place], chosen, widths))
    return sizes is not None and fits(network.model, network.form, network.found, sizes)


def _kinds(network: Subject, chosen: list[Family], widths: list[int]) -> Counter[Signature] | None:
    """How many classes of each signature the network has at these widths; None where it cannot have them."""
    sizes = _sizes(network, chosen, widths)
    if sizes is None or not fits(network.model, network.form, network.found, sizes):
        return None
    try:
        its = its_channels(network.model, network.form, network.found, sizes, network.arch)
    except Misdeclared:
        return None
    return Counter(its.signatures.values())


def _sizes(network: Subject, chosen: list[Family], widths: list[int]) -> dict[tuple[str, int], int] | None:
    """The entries of each axis at these widths; None where one would be no whole number."""
    share = [*(Fraction(width, len(family.classes)) for family, width in zip(chosen, widths, strict=True)), Fraction(1)]
    sizes = {}
    for place, counts in zip(network.found.places, counted(network.found, [f.classes for f in chosen]), strict=True):
        size = sum((share[number] * int(counts[number]) for number in counts.nonzero()[:, 0].tolist()), Fraction(0))
        if size.denominator > 1:
            return None
        sizes[place.tensor, place.axis] = int(size)
    return sizes
