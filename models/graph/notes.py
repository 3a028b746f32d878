"""What a walk notes: which labels are one channel, which channels go together, where they lie, which cannot be cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from models.graph.labels import along, compact, pairs, spread
from models.graph.normal import NormalForm


@dataclass(frozen=True)
class Place:
    """One axis of one tensor, and the channel and class of each entry.

    Args:
        tensor: its name in the normal form; tensors that several modules share have one.
        axis: that the channels lie on.
        channels, classes: int64 (size of the axis,). A class is the channels that are cut at once.
        groups: equal parts of the axis that have to stay equal: those of a grouped convolution.
        rows: whether the entries make the channels; else they read them.
        norm: whether it is the weight of a batch norm: a gate.
        makes: whether the entries are new channels, those of a convolution or linear layer.
    """

    tensor: str
    axis: int
    channels: Tensor
    classes: Tensor
    groups: int = 1
    rows: bool = True
    norm: bool = False
    makes: bool = False


class Notes:
    """The notes of one walk. Labels are those of models/graph/labels.py."""

    def __init__(self, form: NormalForm, whole: frozenset[str] | None) -> None:
        self.decides, self.whole = whole is None, set(whole or ())  # grouped convolutions that lose whole groups
        self.count = 0  # of labels
        self.here = ""  # the operation that the walk is at, for reasons
        self.shape: tuple[Any, ...] = ()  # of the value there, None where it depends on the number of pictures
        self.met: list[Tensor] = []  # pairs of labels that are of one channel
        self.tied: list[Tensor] = []  # pairs of labels that are of one class
        self.stuck: list[tuple[Tensor, str]] = []  # labels that cannot be cut, and why
        self.shared: list[Tensor] = []  # labels that the code shares out together
        self.places: dict[tuple[str, int], Place] = {}
        self.names: dict[int, str] = {}
        for name, tensor in (*form.named_parameters(remove_duplicate=False), *form.named_buffers()):
            self.names.setdefault(id(tensor), name)

    def fresh(self, count: int) -> Tensor:
        self.count += count
        return torch.arange(self.count - count + 1, self.count + 1)

    def fix(self, labels: Tensor, why: str) -> None:
        found = compact(labels).abs().unique()
        self.stuck.append((found[found > 0], why))

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Let channels be cut together."""
        self.tied.append(pairs(one, other))

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Let labels that meet element by element be of one channel; those that meet a 0 cannot be cut."""
        found = pairs(one, other)
        alone = (found == 0).any(1)
        self.fix(found[alone], f"joined with what is no channel: {self.here}")
        self.met.append(found[~alone])

    def lie(
        self, tensor: Tensor, axis: int, labels: Tensor, groups: int = 1,
        rows: bool = True, norm: bool = False, makes: bool = False,
    ) -> None:  # fmt: skip
        """Note that the entries of an axis of a parameter or buffer are these channels."""
        name = self.names[id(tensor)]
        before = self.places.get((name, axis))
        if before is None:
            self.places[name, axis] = Place(name, axis, labels, labels, groups, rows, norm, makes)
            return
        self.unite(before.channels, labels)  # a second place of a layer, or a tensor that two of them share
        if (before.groups, before.rows) != (groups, rows):
            self.fix(labels, f"read in two ways: {name}")

    def read(self, x: Tensor, axis: int) -> Tensor | None:
        """The channels that a layer reads along an axis; fixed, and None, where it reads them in another way."""
        found = along(x, axis)
        if found is None:
            self.fix(x, f"mixed with places: {self.here}")
            return None
        if (found < 0).any():
            self.fix(found[found < 0], f"not 0 where its rows are 0, read by {self.here}")
        return found.abs()

    def out(self, rows: Tensor, x: Tensor) -> Tensor:
        """The labels of what a layer gives of `x`: its rows along axis 1, the other sizes as in the graph."""
        return spread(rows, (x.shape[0], len(rows), *self.shape[2:]))

    def classes(self) -> tuple[list[Place], dict[int, str], list[list[int]]]:
        """The places with channels and classes in place of labels, why classes cannot be cut, and which are shared out."""
        channel, cls = self._components(self.met), self._components([*self.met, *self.tied])
        fixed: dict[int, str] = {}
        for labels, why in self.stuck:
            for found in cls[labels].unique().tolist():
                fixed.setdefault(found, why)
        places = self.places.values()
        shared = [cls[labels].unique().tolist() for labels in self.shared]
        return [replace(p, channels=channel[p.channels], classes=cls[p.channels]) for p in places], fixed, shared

    def _components(self, met: list[Tensor]) -> Tensor:
        """Of each label, the smallest of those that it is joined with."""
        edges = torch.cat([*met, torch.zeros(0, 2, dtype=torch.int64)]).numpy()
        graph = coo_array(([1] * len(edges), (edges[:, 0], edges[:, 1])), shape=(self.count + 1, self.count + 1))
        number, component = connected_components(graph, directed=False)
        first = torch.full((number,), self.count + 1)
        of = torch.from_numpy(component).long()
        return first.scatter_reduce_(0, of, torch.arange(self.count + 1), "amin")[of]
