"""Writer: a graph in batch-first form under construction. axis.py says what that form is."""

from __future__ import annotations

import operator
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from deploy.lowering.batch.axis import BatchAxis
from models.graph.calls import BATCH
from models.graph.flow import is_size
from models.graph.normal import NormalForm

aten = torch.ops.aten


class Writer:
    """A graph in batch-first form under construction, from the graph of a network.

    Attributes:
        axes: by node of the network, the axis of the pictures in its value, or in each of its values.
        new: by node of the network, the node of the new graph that gives the batch-first form.
        graph: the new graph.
    """

    def __init__(self, form: NormalForm) -> None:
        self.form = form
        self.axes: dict[Any, BatchAxis] = {}
        self.new: dict[fx.Node, fx.Node] = {}
        self.graph = fx.Graph()

    def copy(self, node: fx.Node, axis: BatchAxis | None, instead: dict[fx.Node, fx.Node] | None = None) -> None:
        """Write a node as it is, with its sources in their batch-first form.

        Args:
            axis: of its value; None: it has no axis of pictures.
            instead: by source, another node of the new graph.
        """
        self.record(node, self.graph.node_copy(node, self._lookup(instead)), axis)

    def write(
        self, node: fx.Node, axis: BatchAxis, target: Any, *args: Any, instead: dict[fx.Node, fx.Node] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Write a call in a node's place. Nodes among its arguments are those of the network.

        Args:
            instead: as in `copy`.
        """
        args, kwargs = fx.node.map_arg((args, kwargs), self._lookup(instead))
        made = self.graph.create_node("call_function", target, args, kwargs, node.name)
        made.meta = dict(node.meta)
        self.record(node, made, axis)

    def _lookup(self, instead: dict[fx.Node, fx.Node] | None) -> Callable[[fx.Node], fx.Node]:
        """Return the function from a node of the network to that of the new graph; `instead` as in `copy`."""
        new = ChainMap(instead or {}, self.new)

        def look_up(source: fx.Node) -> fx.Node:
            if source not in new:
                raise ValueError(f"it reads {source}, a size of a value whose pictures are not in its first axis")
            return new[source]

        return look_up

    def step(self, node: fx.Node, sizes: Sequence[int], target: Any, *args: Any) -> fx.Node:
        """Write a call before the one in a node's place; nodes among its arguments are those of the new graph.

        Args:
            sizes: of its value, without the pictures in front.
        """
        made = self.graph.call_function(target, args)
        made.meta = {**node.meta, "shape": (None, *sizes), "sizes": (BATCH, *sizes)}
        return made

    def record(self, node: fx.Node, made: fx.Node, axis: BatchAxis | None) -> None:
        """Remember the new node for a node of the network.

        Raises:
            ValueError: if the network's value has other sizes than this axis gives it.
        """
        if axis is not None:
            if node.meta.get("shape") is not None:  # it gives one value
                if not axis.fits(node.meta.get("sizes")):
                    raise ValueError("its sizes are not those of its pictures")
                made.meta = {**made.meta, "shape": (None, *axis.apart), "sizes": (BATCH, *axis.apart)}
            self.axes[node] = axis
        self.new[node] = made

    def axis_of(self, node: fx.Node) -> BatchAxis:
        """Return the axis of the pictures in a value.

        Raises:
            ValueError: if it has none.
        """
        if node not in self.axes:
            raise ValueError(f"{node} has no axis of pictures")
        return self.axes[node]

    def beside(self, sources: Iterable[fx.Node]) -> BatchAxis:
        """Return the axis of the pictures in the values, among some sources, that have one.

        Raises:
            ValueError: if it is not the same in all.
        """
        axes = [self.axes[source] for source in sources if source in self.axes]
        if not axes or not all(axes[0].is_beside(axis) for axis in axes):
            raise ValueError("it reads values whose pictures are in different axes")
        return axes[0]

    def aligned(self, sources: Iterable[fx.Node], axis: BatchAxis) -> dict[fx.Node, fx.Node]:
        """Write the tensors of the network, among some sources, with their axes beside those of a batch-first form.

        Returns:
            The new nodes of those that have axes in front of the ones behind the pictures.

        Raises:
            ValueError: if one varies along the axis of the pictures.
        """
        found = {}
        for held in sources:
            if held in self.axes or is_size(held):
                continue
            sizes = self.held_sizes(held)
            if len(sizes) <= len(axis.after):
                continue
            sizes = (1,) * (axis.rank - len(sizes)) + sizes
            if len(sizes) > axis.rank or sizes[axis.place] != 1:
                raise ValueError(f"{held} is not the same for every picture")
            factors = (1,) * (len(axis.apart) + 1 - axis.rank)
            shape = [1, *sizes[: axis.place], *factors, *sizes[axis.place + 1 :]]
            made = self.graph.call_function(aten.reshape.default, (self.new[held], shape))
            made.meta = {"owner": held.meta.get("owner"), "held": True, "type": held.meta.get("type")}
            found[held] = made
        return found

    def held_sizes(self, node: fx.Node) -> tuple[int, ...]:
        """Return the sizes of a tensor of the network."""
        if node.op == "get_attr":
            found: Tensor = operator.attrgetter(str(node.target))(self.form)
            return tuple(found.shape)
        if None in (shape := shape_of(node)):
            raise ValueError(f"it reads {node}, which is repeated for each picture in another axis than the first")
        return tuple(n for n in shape if n is not None)


def shape_of(node: fx.Node) -> tuple[int | None, ...]:
    """Return the shape of a node's value, with None for an axis that depends on the number of pictures.

    Raises:
        ValueError: if the node does not give one value.
    """
    if (shape := node.meta.get("shape")) is None:
        raise ValueError("the shape of its value is not known")
    return tuple(shape)
