"""The costs of the calls of a normal form: multiply-accumulates of operations, and the network's tensors that calls read.

models/cost.py counts the costs of modules and makes the table of both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.graph.calls import packet
from models.graph.normal import NormalForm, stored

aten = torch.ops.aten


@dataclass(frozen=True)
class Call:
    """One call of an operation on one picture, or a module that reads one of the network's tensors.

    Args:
        name: the module that made the call and the operation, such as `encoder.ln.layer_norm`. A second call of the
            same name gets a number.
        value: the result of the call.
        macs: counted by torch's counter; for attention by a formula, independent of the kernel.
        own: the network's stored tensors that it reads.
    """

    name: str
    value: Any
    macs: int
    own: list[Tensor]


def run(form: NormalForm, x: Tensor, note: Callable[[Call], None]) -> None:
    """Run the graph of a normal form, with the hooks of its modules, and pass each call of an operation to `note`.

    Args:
        x: one picture, (1, *form.captured.picture).
        note: is called with each call.
    """
    _Run(form, note).run(x)


class _Run(fx.Interpreter):
    def __init__(self, form: NormalForm, note: Callable[[Call], None]) -> None:
        super().__init__(form, graph=form.captured.graph)
        self.note, self.names = note, _names(form)
        self.stored = stored(form)

    def run_node(self, n: fx.Node) -> Any:
        if n not in self.names:
            return super().run_node(n)
        given = tree_leaves(self.fetch_args_kwargs_from_env(n))
        own = [leaf for leaf in given if id(leaf) in self.stored]
        if n.op == "call_module":  # it has a row of its own, but its input may be a tensor of the network
            value = super().run_node(n)
            if own:
                self.note(Call(self.names[n], value, 0, own))
            return value
        with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
            value = super().run_node(n)
        macs = counter.get_total_flops() // 2
        if packet(n) is aten.scaled_dot_product_attention:
            macs = _attention(given[1], given[2], value)
        self.note(Call(self.names[n], value, macs, own))
        return value


def _attention(key: Tensor, value: Tensor, out: Tensor) -> int:
    """Return the MACs of softmax(Q K^T) V. Each of the L queries meets S keys and S values; masks save nothing.

    Shapes: key (..., S, E), value (..., S, Ev), out (..., L, Ev).
    """
    queries = out.numel() // out.shape[-1]
    return queries * key.shape[-2] * (key.shape[-1] + value.shape[-1])


def _vector_product(one: Any, other: Any, *_: Any, **__: Any) -> int:
    """Return the FLOPs of (..., n) times (n,). torch's counter has no formula for products with a vector."""
    return 2 * torch.Size(one).numel()


_FORMULAS = {aten.mv: _vector_product, aten.dot: _vector_product, aten.vdot: _vector_product}


def _names(form: NormalForm) -> dict[fx.Node, str]:
    """Name each call, with names that no other call and no module of the network has."""
    found: dict[fx.Node, str] = {}
    taken = {name for name, _ in form.named_modules()}
    for node in form.captured.graph.nodes:
        if node.op in ("call_function", "call_module"):
            start = f"{node.target}.input" if node.op == "call_module" else _of_call(node)
            names = itertools.chain([start], (f"{start}_{number}" for number in itertools.count(1)))
            found[node] = next(name for name in names if name not in taken)
            taken.add(found[node])
    return found


def _of_call(node: fx.Node) -> str:
    what = packet(node) or node.target
    return f"{node.meta.get('owner') or ''}.{getattr(what, '__name__', what)}".lstrip(".")
