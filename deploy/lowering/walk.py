"""lower(form): convert a merged network to a program."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from deploy.lowering.batch.first import batch_first
from deploy.lowering.builder import Builder
from deploy.lowering.calls import CALLS
from deploy.lowering.composed import COMPOSED
from deploy.lowering.computed import COMPUTED
from deploy.lowering.constants import with_constants
from deploy.lowering.deciding import DECIDING
from deploy.lowering.ends import Ends
from deploy.lowering.grids import coded_value, shared_codes
from deploy.lowering.growing import GROWING
from deploy.lowering.layers import layer, line, transposed, turned
from deploy.lowering.modules import lowered
from deploy.lowering.moves import MOVES, item
from deploy.lowering.picking import PICKING
from deploy.lowering.products import PRODUCTS
from deploy.lowering.reductions import REDUCTIONS
from deploy.lowering.resampling import RESAMPLING
from deploy.lowering.truths import check as check_types
from deploy.lowering.windows import WINDOWS
from deploy.operations.base import Operation
from deploy.program import Program
from engine.errors import UserError
from models.graph.calls import packet
from models.graph.flow import first_layers, is_size, last_layers, module, places
from models.graph.normal import NormalForm
from models.layers.coded_value import CodedValue
from models.layers.fold import Flip
from models.layers.quantizers.affine import affine_range
from models.layers.quantizers.base import Quantizer, Steps
from models.layers.quantizers.promises import grid_of

RULES = {
    **CALLS, **REDUCTIONS, **COMPOSED, **MOVES, **PICKING, **GROWING, **RESAMPLING, **WINDOWS, **PRODUCTS, **COMPUTED,
    **DECIDING,
}  # fmt: skip
"""The rule of each operation's calls."""


@torch.no_grad()
def lower(
    form: NormalForm, mean: Sequence[float], std: Sequence[float], low_ends: bool = True, as_trained: Iterable[str] = ()
) -> Program:
    """Return the program of a network whose foldable batch norms are merged (bn_merge.merge).

    Args:
        mean, std: of the pictures that it was trained on, one number for each channel.
        low_ends: in a network with integer layers, quantize the weights of the first and last layers and the
            picture to 8 bits. Other float layers stay float; detectors keep their first and last layers.
        as_trained: names of first and last layers whose codes were trained, so that nothing is rounded.

    Raises:
        UserError: exit 2, naming the layer, for a module or call that no operation computes.
    """
    # rounded to 8 bits, a detector's boxes move by pixels, and its scores are compared with each other
    detects = form.captured.detector is not None
    names = {*first_layers(form), *last_layers(form)} if low_ends and _has_integers(form) and not detects else set()
    names -= {*as_trained}
    ends = Ends(frozenset(names), tuple(mean), tuple(std), _picture(mean, std))
    form = batch_first(with_constants(form))
    builder, answer = Builder(form), 0
    for node in form.captured.graph.nodes:
        builder.node = node
        try:
            answer = _step(builder, node, ends) or answer
        except ValueError as fault:
            raise builder.refused(str(fault)) from fault
        _agrees(builder, node)
    operations = _needed(builder, answer)
    try:
        return Program(operations, form.captured.picture, tuple(mean), tuple(std))
    except ValueError as fault:
        raise UserError(f"the network cannot be a program: {fault}", "run it with PyTorch") from fault


def _step(builder: Builder, node: fx.Node, ends: Ends) -> int:
    """Record a node's value; return the number of the network's answer at the output node, else 0."""
    if builder.hold(node):
        return 0
    if node.op == "placeholder":
        builder.at[node] = 0
    elif node.op == "output":
        return builder.source(node.args[0])
    elif node.op == "call_module":
        builder.at[node] = _module(builder, node, ends)
    elif node.op == "call_function" and not is_size(node):
        rule = item if node.target is operator.getitem else RULES.get(packet(node))
        if rule is None:
            raise builder.refused()
        check_types(builder, node)
        builder.at[node] = rule(builder, node)
    return 0


def _has_integers(form: NormalForm) -> bool:
    """Return whether some layer computes on integers alone."""
    found: list[Any] = [form.get_submodule(name) for name in places(form)]
    return any(
        hasattr(m, "codes") and not m.codes.is_floating_point() and grid_of(m.input_quantizer) is not None
        for m in found
    )


def _picture(mean: Sequence[float], std: Sequence[float]) -> Steps:
    """Return the grid of a normalised picture's 8-bit codes; 0 is on it, so that borders are exact."""
    low = min((0 - m) / s for m, s in zip(mean, std, strict=True))
    high = max((1 - m) / s for m, s in zip(mean, std, strict=True))
    scale, zero = (n.item() for n in affine_range(torch.tensor(low), torch.tensor(high), 8, symmetric=False))
    return Steps(1 / scale, scale, -int(zero), 255 - int(zero))


def _module(builder: Builder, node: fx.Node, ends: Ends) -> int:
    found = module(builder.form, node)
    if isinstance(found, (nn.Conv2d, nn.Linear)):
        return layer(builder, node, ends)
    if isinstance(found, nn.Conv1d):
        return line(builder, node)
    if isinstance(found, nn.ConvTranspose2d):
        return transposed(builder, node)
    if isinstance(found, Flip):
        return turned(builder, node)
    if isinstance(found, Quantizer):
        return shared_codes(builder, node)
    if isinstance(found, CodedValue):
        return coded_value(builder, node)
    assert found is not None
    return lowered(builder, node, found)


def _agrees(builder: Builder, node: fx.Node) -> None:
    """Refuse a node whose shape in the graph differs from its shape in the program."""
    number, shape = builder.at.get(node), node.meta.get("shape")
    if isinstance(number, int) and shape and tuple(shape[1:]) != builder.shape(number):
        raise builder.refused(f"it gives shape {tuple(shape[1:])}, its operation shape {builder.shape(number)}")


def _needed(builder: Builder, answer: int) -> tuple[Operation, ...]:
    """Return the operations that the answer depends on, renumbered, with the answer last."""
    wanted, todo = set(), [answer]
    while todo:
        if (number := todo.pop()) and number not in wanted:
            wanted.add(number)
            todo += builder.operations[number - 1].sources
    order = sorted(wanted)
    new = {0: 0, **{number: place + 1 for place, number in enumerate(order)}}
    return tuple(
        replace(builder.operations[n - 1], sources=tuple(new[s] for s in builder.operations[n - 1].sources))
        for n in order
    )
