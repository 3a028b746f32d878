"""Sums and concatenations with quantized inputs (--sums int8): the values that they read and their quantizers."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Collection

import torch
from torch import fx, nn

from engine.errors import UserError
from models.graph.calls import packet
from models.graph.fixed import of_no_picture
from models.graph.flow import never_negative, sources, writes
from models.graph.normal import NormalForm
from models.layers.coded_value import CodedValue
from models.layers.quantizers.base import Quantizer

CODED = "coded_sums"
"""The name of the module that holds the quantizers, one child a value."""
BITS = 8

aten = torch.ops.aten
_SUMS = frozenset({aten.add, aten.add_})
_CONCATENATIONS = frozenset({aten.cat, aten.stack})


def summed_values(form: NormalForm) -> dict[str, fx.Node]:
    """Return the values read by sums of two values and by concatenations, by the name of each value's quantizer.

    Sums with a number, with a tensor that the network holds, or with a mask that depends on no picture do not count.
    """
    return _named(_sums(form))


def _named(sums: Collection[fx.Node]) -> dict[str, fx.Node]:
    """Return the values that sums read, by the name of each value's quantizer."""
    found = dict.fromkeys(source for node in sums for source in sources(node))
    met: Counter[str] = Counter()
    named = {}
    for node in found:
        name = _name(node)
        met[name] += 1
        named[f"{CODED}.{name}" + (f"_{met[name]}" if met[name] > 1 else "")] = node
    return named


def negative_sums(form: NormalForm) -> list[str]:
    """Return the names of the `summed_values` that may be negative, for lack of a ReLU or similar before them."""
    positive = never_negative(form)
    return [name for name, node in summed_values(form).items() if node not in positive]


def code_sums(form: NormalForm, quantizer: Quantizer) -> list[str]:
    """Quantize the inputs of sums and concatenations, in place, and return the names of their quantizers.

    Args:
        quantizer: copied once for each value.

    Raises:
        UserError: exit 2 if the network has no sums or concatenations, changes values in place, or has a module
            named CODED.
    """
    sums = _sums(form)
    values = _named(sums)
    if writes(form):
        raise UserError("--sums int8: the network changes values in place", "leave --sums out")
    if not values:
        raise UserError("--sums int8: the network has no sums or concatenations of values", "leave --sums out")
    if hasattr(form, CODED):
        raise UserError(f"--sums int8: the network already has a module {CODED}", "rename it, or leave --sums out")
    holder = nn.Module()
    form.add_module(CODED, holder)
    graph = form.captured.graph
    for name, value in values.items():
        holder.add_module(name.removeprefix(f"{CODED}."), CodedValue(copy.deepcopy(quantizer)))
        reading = [user for user in value.users if user in sums]
        with graph.inserting_after(value):
            coded = graph.create_node("call_module", name, (value,))
        coded.meta.update(value.meta, owner=name)
        for user in reading:
            user.replace_input_with(value, coded)
    form.update()
    return [*values]


def _sums(form: NormalForm) -> dict[fx.Node, None]:
    """Return the sums of two values that depend on the picture, and the concatenations, in order."""
    fixed = of_no_picture(form.captured.graph)

    def is_sum(node: fx.Node) -> bool:
        return packet(node) in _SUMS and len([value for value in sources(node) if value not in fixed]) == 2

    return {node: None for node in form.captured.graph.nodes if packet(node) in _CONCATENATIONS or is_sum(node)}


def _name(node: fx.Node) -> str:
    """Name a value after its source: a module, a call of an operation in a module, or a part of that call's result."""
    if node.op == "call_module":
        return str(node.target).replace(".", "_")
    if node.target is operator.getitem:
        return f"{_name(node.all_input_nodes[0])}_{node.args[1]}"
    if node.op == "placeholder":
        return "picture"
    owner = str(node.meta.get("owner") or "").replace(".", "_")
    return f"{owner}_{packet(node).__name__}".lstrip("_")
