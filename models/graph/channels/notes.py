"""What a walk notes: which labels are one channel, which channels go together, where they lie, which cannot be cut."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from models.graph.channels.labels import along, compact, pairs, spread
from models.graph.normal import NormalForm, stored


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
        zeroed: whether to silence a channel is to set its entries to 0; not those that divide.
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
    zeroed: bool = True


class Notes:
    """The notes of one walk. Labels are those of models/graph/channels/labels.py."""

    def __init__(self, form: NormalForm, whole: frozenset[str] | None) -> None:
        self.decides, self.whole = whole is None, set(whole or ())  # grouped convolutions that lose whole groups
        self.count = 0  # of labels
        self.here = ""  # the operation that the walk is at, for reasons
        self.shape: tuple[Any, ...] = ()  # of the value there, None where it depends on the number of pictures
        self.met: list[Tensor] = []  # pairs of labels that are of one channel
        self.tied: list[Tensor] = []  # pairs of labels that are of one class
        self.stuck: list[tuple[Tensor, str]] = []  # labels that cannot be cut, and why
        self.shared: list[Tensor] = []  # labels that the code shares out together
        self.paths = torch.zeros(1, dtype=torch.int64)  # of each label, a hash of the operations that it went through
        self.apart: set[str] = set()  # tensors that operations read otherwise than by channels
        self.places: dict[tuple[str, int], Place] = {}
        self.names: dict[int, str] = {}  # of the tensors that a file holds, by id
        held = stored(form)
        for name, tensor in (*form.named_parameters(remove_duplicate=False), *form.named_buffers()):
            if id(tensor) in held:
                self.names.setdefault(id(tensor), name)

    def fresh(self, count: int) -> Tensor:
        self.count += count
        self.paths = torch.cat([self.paths, self.paths.new_zeros(count)])
        return torch.arange(self.count - count + 1, self.count + 1)

    def passes(self, labels: Tensor, operation: str) -> None:
        """Note that labels went through an operation of the graph: what goes through others is no substitute."""
        its = compact(labels).abs().unique()
        its = its[its > 0]
        self.paths[its] = self.paths[its] * 1_000_003 + crc32(operation.encode())  # int64 wraps around

    def fix(self, labels: Tensor, why: str) -> None:
        found = compact(labels).abs().unique()
        self.stuck.append((found[found > 0], why))

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Let channels be cut together; those that go with a 0 cannot be cut."""
        self.tied.append(self._apart_from_none(one, other, "goes together with what is no channel"))

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Let labels that meet element by element be of one channel; those that meet a 0 cannot be cut."""
        self.met.append(self._apart_from_none(one, other, "joined with what is no channel"))

    def _apart_from_none(self, one: Tensor, other: Tensor, why: str) -> Tensor:
        """The pairs of two labels, each once; labels that are paired with a 0 are fixed."""
        found = pairs(one, other)
        alone = (found == 0).any(1)
        self.fix(found[alone], f"{why}: {self.here}")
        return found[~alone]

    def lie(
        self, tensor: Tensor, axis: int, labels: Tensor, groups: int = 1,
        rows: bool = True, norm: bool = False, makes: bool = False, zeroed: bool = True,
    ) -> None:  # fmt: skip
        """Note that the entries of an axis of a parameter or buffer are these channels."""
        name = self.names[id(tensor)]
        before = self.places.get((name, axis))
        if before is None:
            self.places[name, axis] = Place(name, axis, labels, labels, groups, rows, norm, makes, zeroed)
            return
        self.unite(before.channels, labels)  # a second place of a layer, or a tensor that two of them share
        if (before.groups, before.rows, before.zeroed) != (groups, rows, zeroed):
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

    def classes(self) -> tuple[list[Place], dict[int, str], list[list[int]], dict[int, frozenset[int]]]:
        """The places with channels and classes in place of labels, why classes cannot be cut, which are shared out, and by
        class the paths of its labels.
        """
        channel, cls = self._components(self.met), self._components([*self.met, *self.tied])
        for place in self.places.values():
            if place.tensor in self.apart:
                self.stuck.append((place.channels, f"{place.tensor} is read by operations other than its layer"))
        fixed: dict[int, str] = {}
        for labels, why in self.stuck:
            for found in cls[labels].unique().tolist():
                fixed.setdefault(found, why)
        places = self.places.values()
        shared = [cls[labels].unique().tolist() for labels in self.shared]
        paths: dict[int, set[int]] = defaultdict(set)
        for its, path in torch.stack([cls, self.paths], 1)[1:].unique(dim=0).tolist():
            paths[its].add(path)
        went = {its: frozenset(found) for its, found in paths.items()}
        return [replace(p, channels=channel[p.channels], classes=cls[p.channels]) for p in places], fixed, shared, went

    def _components(self, met: list[Tensor]) -> Tensor:
        """Of each label, the smallest of those that it is joined with."""
        edges = torch.cat([*met, torch.zeros(0, 2, dtype=torch.int64)]).numpy()
        graph = coo_array(([1] * len(edges), (edges[:, 0], edges[:, 1])), shape=(self.count + 1, self.count + 1))
        number, component = connected_components(graph, directed=False)
        first = torch.full((number,), self.count + 1)
        of = torch.from_numpy(component).long()
        return first.scatter_reduce_(0, of, torch.arange(self.count + 1), "amin")[of]
