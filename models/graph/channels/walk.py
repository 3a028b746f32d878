"""One walk through a normal form with labels in place of values: see labels.py and classes.py."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves, tree_map

from models.graph import calls
from models.graph.channels import label_rules, labels as table
from models.graph.channels.call_rules import RULES
from models.graph.channels.choices import CONDITION
from models.graph.channels.labels import along, compact, splits, stretched, varies
from models.graph.channels.masked import Number, number
from models.graph.channels.notes import Notes
from models.graph.channels.values import Raw, as_raw, contents, labels_of, nothing, run_empty
from models.graph.flow import PASSING
from models.graph.normal import NormalForm

aten = torch.ops.aten

BROADCASTS = table.BROADCASTS | calls.COMPARISONS.keys() | CONDITION.keys()
"""Calls of several values, which need no expansion before them."""
PICTURE, ANSWER = "the picture's own", "the network's answer"

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Hardswish,
    nn.Hardsigmoid, nn.Softplus, nn.PReLU, *PASSING,
)  # fmt: skip
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class Walk(fx.Interpreter):
    """An interpreter that runs a graph on labels and makes notes."""

    def __init__(self, form: NormalForm, notes: Notes) -> None:
        super().__init__(form, graph=form.captured.graph)
        self.notes = notes
        self.at: fx.Node  # the current node
        self.masked: dict[fx.Node, Number] = {}
        self.expanded: dict[fx.Node, Tensor | Raw] = {}  # what an expansion expands

    def run_node(self, n: fx.Node) -> Any:
        self.at, self.notes.here, self.notes.sizes = n, _place(n), n.meta.get("sizes") or ()
        found = super().run_node(n)
        self.masked[n] = self._number(n, found)
        if calls.packet(n) not in table.IDLE:
            for leaf in tree_leaves(found):
                if isinstance(leaf, Tensor):
                    self.notes.passes(leaf, n.name)
        return found

    def _number(self, n: fx.Node, labels: Any) -> Number:
        """Return the number of masked channels at a node. If it is not finite, fix them."""
        called = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        each = called if isinstance(called, ACTIVATIONS) and not isinstance(called, nn.PReLU) else None
        run = nn.Identity() if isinstance(called, PASSING) else each
        found = number(n, labels, self.env, self.masked, run)
        if found is not None and not isfinite(found):
            self.notes.fix(labels, f"not finite when masked: {self.notes.here}")
        return found

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        labels = super().placeholder(target, args, kwargs)
        self.notes.fix(labels, PICTURE)
        return labels

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        for leaf in tree_leaves(args):
            if isinstance(leaf, Tensor):
                self.notes.fix(leaf, ANSWER)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = super().get_attr(target, args, kwargs)
        return (
            Raw(found if id(found) in self.notes.names else None, found.detach())
            if isinstance(found, Tensor)
            else found
        )

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module, x = self.fetch_attr(target), labels_of(args[0])
        found = self._layer(str(target), module, x)
        return self.unknown([x]) if found is None else found

    def _layer(self, name: str, module: nn.Module, x: Tensor) -> Tensor | None:
        if isinstance(module, _ConvTransposeNd):
            return label_rules.transposed(self.notes, name, module, x)
        if isinstance(module, _ConvNd):
            return label_rules.conv(self.notes, name, module, x)
        if isinstance(module, nn.Linear):
            return label_rules.linear(self.notes, module, x)
        if isinstance(module, _BatchNorm):
            return label_rules.norm(self.notes, module, x)
        if isinstance(module, nn.PReLU) and module.num_parameters > 1:
            return label_rules.slopes(self.notes, module.weight, x)
        if isinstance(module, POOLS):
            return self.spatial(x, 2)
        if isinstance(module, PASSING):  # dropout counts as in evaluation
            return x
        if isinstance(module, ACTIVATIONS):
            return _silent(x, module(next((p.new_zeros(1) for p in module.parameters()), torch.zeros(1))))
        return None

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        packet = getattr(target, "overloadpacket", None)
        if packet in table.EXPANDS:
            self.expanded[self.at] = args[0]
        args = self._unexpanded(args) if packet in BROADCASTS else args
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, (Tensor, Raw))]
        if not any(isinstance(leaf, Tensor) for leaf in given):
            return self._without_values(packet, target, args, kwargs)
        if packet is None or packet in calls.SIZES:
            return super().call_function(target, args, kwargs)
        if (packet in table.MOVES and (len(given) == 1 or packet in table.JOINS)) or _is_fixed_index(packet, args):
            return self._move(packet, target, args, kwargs)
        if len(given) == 1 and packet in table.POINTWISE:
            return self.function(target, args, kwargs)
        if len(given) == 2 and packet in (*table.SUMS, *table.PRODUCTS):
            return self.two(given[0], given[1], product=packet in table.PRODUCTS)
        found = RULES[packet](self, target, args, kwargs) if packet in RULES else None
        return self.unknown(given, lambda: run_empty(target, args, kwargs)) if found is None else found

    def _unexpanded(self, args: Any) -> Any:
        """Return the arguments of a call that broadcasts without the expansions before it, which change nothing."""
        sources = [
            self.expanded.get(node, value) if isinstance(node, fx.Node) else value
            for node, value in zip(self.at.args, args, strict=True)
        ]
        shapes = [
            [labels_of(leaf).shape for leaf in each if isinstance(leaf, (Tensor, Raw))] for each in (sources, args)
        ]
        return sources if torch.broadcast_shapes(*shapes[0]) == torch.broadcast_shapes(*shapes[1]) else args

    def _without_values(self, packet: Any, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a call that reads no values of the pictures: only sizes and tensors of the network."""
        if packet in table.VIEWS and (same := args[0].viewed(target(*contents(args), **contents(kwargs)))):
            return same
        if packet not in calls.SIZES:
            self._apart(tree_leaves((args, kwargs)))
        return tree_map(as_raw, target(*contents(args), **contents(kwargs)))

    def _move(self, packet: Any, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a move, and note if it splits channels into parts."""
        found = _moved(packet, target, args, kwargs)
        if isinstance(args[0], Tensor) and packet in table.PARTS and splits(args[0], found):
            self.notes.shared.append(compact(args[0]).abs().unique())
        return found

    def _apart(self, given: list[Any]) -> None:
        """Note that an operation reads tensors of the network as a whole."""
        for raw in given:
            if isinstance(raw, Raw) and raw.own is not None:
                self.notes.apart.add(self.notes.names[id(raw.own)])

    def is_of_code(self, target: str) -> bool:
        """Return whether an attribute of the graph is a constant of the code: neither a parameter nor a stored buffer."""
        return id(self.fetch_attr(target)) not in self.notes.names

    def spatial(self, x: Tensor, directions: int) -> Tensor:
        """Run a pool or similar. On a value without an axis for pictures, it would pool channels."""
        found = along(x, 1) if x.ndim == directions + 2 else None
        return self.unknown([x]) if found is None else self.notes.out(found, x)

    def function(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        """Run a function of one number at a time, tried on 0."""
        x = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        zero, options = tree_map(lambda leaf: torch.zeros(1) if leaf is x else leaf, (args, kwargs))
        return _silent(x, target(*zero, **options))

    def two(self, one: Any, other: Any, product: bool) -> Tensor:
        """Run a sum or product, element by element."""
        if isinstance(one, Raw) or isinstance(other, Raw):
            raw, x = (one, other) if isinstance(one, Raw) else (other, one)
            return self.with_raw(x, raw, product)
        for x, kept in ((one, other), (other, one)):
            if stretched(x, kept):  # one channel broadcast over several cannot be cut
                self.notes.fix(x, f"broadcast over several channels: {self.notes.here}")
                if stretched(kept, x):
                    return self.unknown([one, other])
                found = kept if product else -kept.abs()
                return found.expand(torch.broadcast_shapes(one.shape, other.shape))
        self.notes.unite(one, other)
        shape = torch.broadcast_shapes(one.shape, other.shape)
        one, other = (compact(x) for x in (one, other))
        odd = (one < 0) & (other < 0) if product else (one < 0) | (other < 0)
        return torch.where(odd, -one.abs(), one.abs()).expand(shape)

    def with_raw(self, x: Tensor, raw: Raw, product: bool, zeroed: bool = True) -> Tensor:
        """Run a sum or product with a tensor of the network, whose entries along a channel axis are rows.

        Args:
            zeroed: as in notes.Place.
        """
        shape = torch.broadcast_shapes(x.shape, raw.value.shape)
        wide = x.expand(shape)
        offset, own = len(shape) - raw.value.ndim, False
        for axis, size in enumerate(raw.value.shape):
            if size > 1 and varies(wide, axis + offset):
                found = along(wide, axis + offset)
                if found is None or raw.own is None:
                    self.notes.fix(x, f"combined with a constant for each channel: {self.notes.here}")
                    return self.unknown([x])
                self.notes.lie(raw.own, raw.axis(axis), found.abs(), zeroed=zeroed)
                own = True
        return wide if product or own else -wide.abs()

    def unknown(self, given: list[Any], run: Callable[[], Any] | None = None) -> Any:
        """Handle an operation without a rule: fix its inputs and return labels of no channel.

        Args:
            run: runs the operation on tensors without contents; None takes the output's shape from the graph.
        """
        self._apart(given)
        for labels in given:
            if isinstance(labels, Tensor):
                self.notes.fix(labels, f"read by {self.notes.here}")
        if run is None:
            return nothing(self.at.meta["sizes"])
        try:
            found = run()
        except (RuntimeError, NotImplementedError):  # the operation does not support tensors without contents
            if self.at.meta.get("sizes") is None:
                raise
            return nothing(self.at.meta["sizes"])
        return tree_map(lambda leaf: nothing(leaf.shape) if isinstance(leaf, Tensor) else leaf, found)


def _place(node: fx.Node) -> str:
    """Name a node for reasons: a layer's name, or an operation and its module."""
    if node.op == "call_module":
        return str(node.target)
    what, owner = str(node.target).removeprefix("aten.").partition(".")[0], node.meta.get("owner")
    return f"{what} of {owner}" if owner else what


def _is_fixed_index(packet: Any, args: Any) -> bool:
    """Return whether a call picks entries by indices that do not depend on the pictures."""
    if packet not in (aten.index, aten.index_select) or not isinstance(args[0], Tensor):
        return False
    return not any(isinstance(at, Tensor) for at in (args[1] if packet is aten.index else args[2:]))


def _silent(x: Tensor, of_zero: Tensor) -> Tensor:
    """Return the labels behind a function of each number: negative ones unless it maps 0 to 0."""
    return x if bool((of_zero == 0).all()) else -x.abs()


def _moved(packet: Any, target: Any, args: Any, kwargs: Any) -> Any:
    """Run a move on labels."""
    if packet in (aten.to, aten._to_copy, aten.contiguous, aten.clone):
        return args[0]
    if packet is aten.index:
        return args[0][tuple(slice(None) if at is None else at.value for at in args[1])]
    if packet is aten.index_select:
        return args[0].index_select(args[1], args[2].value)
    return target(*tree_map(labels_of, args), **kwargs)
