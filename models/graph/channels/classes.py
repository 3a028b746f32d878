"""The classes of channels of a network, found by sending labels through its normal form.

A class holds the channels that must be cut together: rows of convolutions, linear layers and batch norms, slopes and
scales, and the columns that read them. Operations without a rule fix the channels that they read: no operation is ever
guessed to work on each number separately.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn

from models.graph.calls import BATCH
from models.graph.channels.labels import spread
from models.graph.channels.notes import Notes, Place
from models.graph.channels.walk import Walk
from models.graph.normal import NormalForm

Signature = tuple[frozenset[tuple[str, int, int]], bool, frozenset[int]]
"""The signature of a class: its tensors, axes and numbers of groups, whether it is fixed, and its paths."""


@dataclass(frozen=True)
class Channels:
    """The classes of channels of a network.

    Args:
        places: all axes of tensors that hold channels, in the order of the graph.
        fixed: why classes cannot be cut, by class.
        whole: names of grouped convolutions that lose whole groups. Others lose equally many channels in each group.
        shared: classes that the code splits together (chunks, shuffles); they lose equal shares.
        paths: hashes of the operations that a class's channels go through, by class.
    """

    places: list[Place]
    fixed: dict[int, str]
    whole: frozenset[str]
    shared: list[list[int]]
    paths: dict[int, frozenset[int]]

    @cached_property
    def signatures(self) -> dict[int, Signature]:
        """The signature of each class. Classes with equal signatures are interchangeable."""
        return {
            cls: (where, cls in self.fixed, self.paths.get(cls, frozenset()))
            for cls, where in self.where("classes").items()
        }

    def where(self, what: Literal["classes", "channels"]) -> dict[int, frozenset[tuple[str, int, int]]]:
        """Return the places of each class or channel: tensor, axis, and number of the group."""
        lies: dict[int, set[tuple[str, int, int]]] = defaultdict(set)
        for place in self.places:
            part = len(place.classes) // place.groups
            spots = [(place.tensor, place.axis, number) for number in range(place.groups)]
            for position, label in enumerate(getattr(place, what).tolist()):
                lies[label].add(spots[position // part])
        return {label: frozenset(where) for label, where in lies.items()}


def gates(form: NormalForm) -> list[tuple[str, nn.Module]]:
    """Return the batch norms that scale channels which can be cut, with names, in order. The result is cached."""
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
    """Find the classes of channels of a network.

    Args:
        whole: Channels.whole of the network that this one was cut from; None chooses the grouped convolutions with one
            or two inputs a group.
    """
    notes = Notes(form, whole)
    Walk(form, notes).run(spread(notes.fresh(form.captured.picture[0]), (BATCH, *form.captured.picture)))
    places, fixed, shared, paths = notes.classes()
    return Channels(places, fixed, frozenset(notes.whole), shared, paths)
