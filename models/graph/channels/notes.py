"""The notes of a walk: labels of one channel, channels that go together, their places, and channels that stay."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from zlib import crc32

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from models.graph.channels.labels import at_places, compact, pairs, spread
from models.graph.normal import NormalForm, stored


@dataclass(frozen=True)
class Place:
    """One axis of one tensor, and the channel and class of each entry.

    Args:
        tensor: its name in the normal form; a tensor shared by several modules has one name.
        axis: the axis of the channels.
        channels, classes: int64 (size of the axis,). A class holds the channels that are cut together.
        groups: number of equal parts of the axis that must stay equal, as in a grouped convolution.
        rows: whether the entries make the channels; otherwise they read them.
        norm: whether the tensor is the weight of a batch norm: a gate.
        zeroed: whether entries are set to 0 to mask a channel; False for tensors that divide.
        makes: whether the entries create channels, as in a convolution or linear layer.
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
    """The notes of one walk. models/graph/channels/labels.py explains labels."""

    def __init__(self, form: NormalForm, whole: frozenset[str] | None) -> None:
        self.decides, self.whole = whole is None, set(whole or ())  # grouped convolutions that lose whole groups
        self.count = 0  # number of labels
        self.here = ""  # the current operation, for reasons
        self.sizes: tuple[int, ...] = ()  # of the current value
        self.met: list[Tensor] = []  # pairs of labels of one channel
        self.tied: list[Tensor] = []  # pairs of labels of one class
        self.stuck: list[tuple[Tensor, str]] = []  # labels that cannot be cut, and the reasons
        self.shared: list[Tensor] = []  # labels that the code splits together
        self.paths = torch.zeros(1, dtype=torch.int64)  # for each label, a hash of the operations on its way
        self.apart: set[str] = set()  # tensors that operations read as a whole, not by channels
        self.places: dict[tuple[str, int], Place] = {}
        self.names: dict[int, str] = {}  # names of the tensors that a file would hold, by id
        held = stored(form)
        for name, tensor in (*form.named_parameters(remove_duplicate=False), *form.named_buffers()):
            if id(tensor) in held:
                self.names.setdefault(id(tensor), name)

    def fresh(self, count: int) -> Tensor:
        self.count += count
        self.paths = torch.cat([self.paths, self.paths.new_zeros(count)])
        return torch.arange(self.count - count + 1, self.count + 1)

    def passes(self, labels: Tensor, operation: str) -> None:
        """Note that labels went through an operation. Channels are interchangeable only with equal operations."""
        its = compact(labels).abs().unique()
        its = its[its > 0]
        self.paths[its] = self.paths[its] * 1_000_003 + crc32(operation.encode())  # int64 wraps around

    def fix(self, labels: Tensor, why: str) -> None:
        found = compact(labels).abs().unique()
        self.stuck.append((found[found > 0], why))

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Note that channels are cut together. Channels tied to a 0 cannot be cut."""
        self.tied.append(self._apart_from_none(one, other, "grouped with a value that is not a channel"))

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Note that labels that meet element by element are of one channel. Labels that meet a 0 cannot be cut."""
        self.met.append(self._apart_from_none(one, other, "joined with a value that is not a channel"))

    def _apart_from_none(self, one: Tensor, other: Tensor, why: str) -> Tensor:
        """Return the pairs of two labels, each once, and fix labels that are paired with a 0."""
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
        self.unite(before.channels, labels)  # the layer runs twice, or two layers share the tensor
        if (before.groups, before.rows, before.zeroed) != (groups, rows, zeroed):
            self.fix(labels, f"used in two different ways: {name}")

    def read(self, x: Tensor, axis: int, groups: int = 1) -> Tensor | None:
        """Return the channels that a layer reads along an axis, 0 where other axes mix with it; None if they do at every place.

        Channels that mix are fixed. A layer in groups, which stay equal, fixes all if one of its places has no channel.
        """
        found, mixed = at_places(x, axis)
        some = bool((mixed | (found[:, 0] == 0)).any())
        if bool(mixed.any()) or (groups > 1 and some):
            self.fix(found if groups > 1 else found[mixed], f"mixed with other axes: {self.here}")
        if bool(mixed.all()) or (groups > 1 and some):
            return None
        found = torch.where(mixed, 0, found[:, 0]).expand(x.shape[axis])
        if (found < 0).any():
            self.fix(found[found < 0], f"not 0 when masked, read by {self.here}")
        return found.abs()

    def out(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return the labels of a layer's output for `x`: its rows along axis 1, with the sizes of the graph."""
        return spread(rows, (x.shape[0], len(rows), *self.sizes[2:]))

    def classes(self) -> tuple[list[Place], dict[int, str], list[list[int]], dict[int, frozenset[int]]]:
        """Turn labels into channels and classes.

        Returns:
            The places; the reasons why classes cannot be cut; the classes that are split together; and the paths of
            each class.
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
        """Return for each label the smallest label that it is joined with."""
        edges = torch.cat([*met, torch.zeros(0, 2, dtype=torch.int64)]).numpy()
        graph = coo_array(([1] * len(edges), (edges[:, 0], edges[:, 1])), shape=(self.count + 1, self.count + 1))
        number, component = connected_components(graph, directed=False)
        first = torch.full((number,), self.count + 1)
        of = torch.from_numpy(component).long()
        return first.scatter_reduce_(0, of, torch.arange(self.count + 1), "amin")[of]
