"""Which channels of a network go together: found by sending labels through its normal form.

A class of channels is what has to be cut at once: rows of convolutions, linear layers and batch norms, slopes and
scales, and the columns that read them. An operation without a rule fixes the channels that it reads, by name: nothing
is ever guessed to work on each number apart.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn

from models.graph.channels.labels import spread
from models.graph.channels.notes import Notes, Place
from models.graph.channels.walk import BATCH, Walk
from models.graph.normal import NormalForm

Signature = tuple[frozenset[tuple[str, int, int]], bool, frozenset[int]]
"""Of a class: the tensors, axes and groups' numbers where it lies, whether it is fixed, and its paths."""


@dataclass(frozen=True)
class Channels:
    """The classes of channels of a network.

    Args:
        places: all axes that channels lie on, in the order of the graph.
        fixed: why classes cannot be cut, by class.
        whole: grouped convolutions that lose whole groups; others lose as many channels in each group.
        shared: classes that the code shares out together (chunks, shuffles): they lose equal shares.
        paths: by class, hashes of the operations that its channels go through.
    """

    places: list[Place]
    fixed: dict[int, str]
    whole: frozenset[str]
    shared: list[list[int]]
    paths: dict[int, frozenset[int]]

    @cached_property
    def signatures(self) -> dict[int, Signature]:
        """Of each class, where it lies. Classes of equal signatures can take each other's places."""
        return {
            cls: (where, cls in self.fixed, self.paths.get(cls, frozenset()))
            for cls, where in self.where("classes").items()
        }

    def where(self, what: Literal["classes", "channels"]) -> dict[int, frozenset[tuple[str, int, int]]]:
        """Where each class or channel lies: tensor, axis, and number of the group."""
        lies: dict[int, set[tuple[str, int, int]]] = defaultdict(set)
        for place in self.places:
            part = len(place.classes) // place.groups
            spots = [(place.tensor, place.axis, number) for number in range(place.groups)]
            for position, label in enumerate(getattr(place, what).tolist()):
                lies[label].add(spots[position // part])
        return {label: frozenset(where) for label, where in lies.items()}


def gates(form: NormalForm) -> list[tuple[str, nn.Module]]:
    """The batch norms that scale channels which can be cut, by name, in order; found once for a graph."""
    if form.captured.gates is None:
        found = channels(form, form.captured.whole)
        names = (
            p.tensor.rpartition(".")[0]
            for p in found.places
            if p.norm and not found.fixed.keys() >= {*p.classes.tolist()}
        )
        form.captured.gates = tuple(names)
    return [(name, form.get_submodule(name)) for name in form.captured.gates]


def channels(form: NormalForm, whole: frozenset[str] | None = None) -> Channels:
    """The classes of channels of a network.

    Args:
        whole: as in the result, where another network's is to be kept to; None: those with one or two inputs a group.
    """
    notes = Notes(form, whole)
    Walk(form, notes).run(spread(notes.fresh(form.captured.picture[0]), (BATCH, *form.captured.picture)))
    places, fixed, shared, paths = notes.classes()
    return Channels(places, fixed, frozenset(notes.whole), shared, paths)
