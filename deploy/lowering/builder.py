"""The builder of a program: a walk over a graph, and the helpers that rules for modules and calls use."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx

from deploy.operations.base import Numbers, Operation, Shape, Value
from deploy.operations.functions import Constant
from deploy.operations.places import Reshape
from engine.errors import UserError
from models.graph import calls
from models.graph.normal import NormalForm

WHOLE = 2**24
"""fp32 holds all whole numbers up to this one."""
Rule = Callable[["Builder", fx.Node], int | list[int]]
"""Adds a node's operations and returns the number of its value, or a list of numbers."""


class Builder:
    """A program under construction.

    Attributes:
        operations: the operations added so far.
        at: by node, the number of its value, or a list of numbers.
        held: by node, the network's tensors and results computed from these tensors alone.
    """

    def __init__(self, form: NormalForm) -> None:
        self.form = form
        self.operations: list[Operation] = []
        self.values = [Value(form.captured.picture)]
        self.at: dict[fx.Node, int | list[int]] = {}
        self.held: dict[fx.Node, Any] = {}
        self.node: fx.Node | None = None

    def add(self, make: Callable[..., Operation], *sources: int, part: str = "", **settings: Any) -> int:
        """Add an operation and return the number of its value.

        Args:
            part: suffix of the operation's name, where one node becomes several operations.
        """
        assert self.node is not None
        operation = make(sources=sources, name=name_of(self.node) + part, **settings)
        try:
            value = operation.value(*(self.values[source] for source in sources))
        except ValueError as fault:
            raise self.refused(f"{type(operation).__name__}: {fault}") from fault
        self.operations.append(operation)
        self.values.append(value)
        return len(self.operations)

    def source(self, node: Any = None) -> int:
        """Return the number of a node's value. None: of the current node's first argument."""
        node = calls.source(cast(fx.Node, self.node)) if node is None else node
        if node in self.held and node not in self.at:
            self.at[node] = self._constant(node)
        found = self.at.get(node)
        if not isinstance(found, int):
            raise self.refused(f"it reads {node}, which is not a value of the program")
        return found

    def shape(self, number: int) -> Shape:
        return self.values[number].shape

    def axis(self, dim: int, rank: int | None = None) -> int:
        """Convert torch's axis, which counts the batch axis, to an axis of a program's value.

        Args:
            rank: torch's number of axes; None: that of the first argument.

        Raises:
            UserError: exit 2 for the batch axis.
        """
        rank = len(self.shape(self.source())) + 1 if rank is None else rank
        found = dim % rank - 1
        if found < 0:
            raise self.refused("it works across pictures")
        return found

    def given(self) -> Shape:
        """Return the shape of the current node's value in the graph, without the batch axis.

        Raises:
            UserError: exit 2 if the first axis is not the batch or another axis varies.
        """
        shape = cast(fx.Node, self.node).meta.get("shape")
        if shape is None or not shape or shape[0] is not None or None in shape[1:]:
            raise self.refused("it works across pictures")
        return tuple(shape[1:])

    def reshaped(self, number: int, shape: Shape, part: str = "") -> int:
        """Return a value's numbers in this shape; reshapes one after the other become one, and equal ones are shared."""
        number = self.unshaped(number)
        if self.shape(number) == shape:
            return number
        for other, operation in enumerate(self.operations, 1):
            if isinstance(operation, Reshape) and (operation.sources, operation.shape) == ((number,), shape):
                return other
        return self.add(Reshape, number, shape=shape, part=part)

    def unshaped(self, number: int) -> int:
        """Return the value that a reshape has reshaped; for other values, the value itself."""
        while number and isinstance(operation := self.operations[number - 1], Reshape):
            (number,) = operation.sources
        return number

    def tensor(self, node: fx.Node) -> Tensor:
        """Return the network's tensor that a call reads, or a result computed from such tensors alone, in floating point."""
        found = self.held.get(node)
        if not isinstance(found, Tensor) or found.is_complex():
            raise self.refused(f"it reads {node}, which is not a tensor of real numbers of the network")
        if found.is_floating_point():
            return found.detach()
        if bool((found.double().abs() > WHOLE).any()):
            raise self.refused(f"it reads {node}, whose whole numbers fp32 does not hold")
        return found.double()

    def hold(self, node: fx.Node) -> bool:
        """Keep a node's value if it is a tensor of the network or computed from such tensors alone.

        Returns:
            Whether it was kept; it then needs no operation.
        """
        if node.op == "get_attr":
            found: Any = self.form
            for leaf in str(node.target).split("."):
                found = getattr(found, leaf)
            self.held[node] = found
        elif node.op.startswith("call_") and node.all_input_nodes and {*node.all_input_nodes} <= self.held.keys():
            called: Any = self.form.get_submodule(str(node.target)) if node.op == "call_module" else node.target
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.held[n])
            self.held[node] = called(*args, **kwargs)
        return node in self.held

    def _constant(self, node: fx.Node) -> int:
        """Add a tensor of the network as a value that is the same for each picture."""
        held = self.tensor(node)
        if held.ndim < 2 or held.shape[0] != 1:
            raise self.refused(
                f"it reads {node} of shape {tuple(held.shape)}; it needs two or more axes, the first of length 1 "
                "(for the pictures)"
            )
        return self.add(Constant, part=f".{node}", numbers=numbers(held[0]))

    def refused(self, why: str = "") -> UserError:
        """Return the error for the current node, which cannot become an operation."""
        return refused(self.form, cast(fx.Node, self.node), why)


def refused(form: NormalForm, node: fx.Node, why: str) -> UserError:
    """Return the error for a node that cannot become an operation."""
    if node.target is operator.getitem:  # of several values that one call gives
        node = node.all_input_nodes[0]
    what = calls.packet(node)
    kind = what.__name__ if what is not None else str(node.target)
    if node.op == "call_module":
        kind = type(form.get_submodule(str(node.target))).__name__
    place = f" ({node.meta['line']})" if node.meta.get("line") else ""
    return UserError(
        f"{name_of(node)}: a program has no operation {kind}{': ' + why if why else ''}{place}",
        "run this network with PyTorch, or write that part with the operations that docs/deployment.md lists",
    )


def name_of(node: fx.Node) -> str:
    """Return a node's name: that of its module; for a call, the module that ran it and the operation."""
    if node.op == "call_module":
        return str(node.target)
    owner, what = node.meta.get("owner") or "", calls.packet(node)
    return f"{owner}.{what.__name__ if what is not None else node.name}".lstrip(".")


def numbers(tensor: Tensor | float) -> Numbers:
    """Convert a tensor to fp32, or one number to shape (1,).

    Raises:
        ValueError: if a number is not finite in fp32.
    """
    found = torch.as_tensor(tensor).detach().cpu().double()
    found = found.reshape(1) if found.ndim == 0 else found
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(found.numpy().astype(np.float32))
    if not np.isfinite(single).all():
        raise ValueError("it holds a number that fp32 cannot hold")
    return single


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
