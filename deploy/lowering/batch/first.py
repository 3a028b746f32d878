"""batch_first(form): the same network with the pictures in the first axis of every value.

Attention moves that axis, or lays it together with another: timm's `permute(2, 0, 3, 1, 4).unbind(0)`, the heads of
nn.MultiheadAttention, the windows of MaxViT. The other rules of lowering read pictures in the first axis only.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import replace
from math import prod

import torch
from torch import fx, nn

from deploy.lowering.batch.axis import BatchAxis
from deploy.lowering.batch.maps import on_maps
from deploy.lowering.batch.rules import LAST, MOVING, RULES
from deploy.lowering.batch.writer import Writer, shape_of
from deploy.lowering.builder import refused
from deploy.lowering.modules import ELEMENTWISE
from deploy.lowering.truths import LOGIC
from models.graph.calls import COMPARISONS, NOT, packet, source
from models.graph.channels.labels import IDLE, POINTWISE
from models.graph.flow import is_size, module, sources
from models.graph.normal import NormalForm
from models.layers.coded_value import CodedValue
from models.layers.quantizers.base import Quantizer

aten = torch.ops.aten

MOVED = "it reads a value whose pictures are not in its first axis"
ANSWER = "the answer does not have the pictures in its first axis"
EACH_NUMBER = POINTWISE | IDLE | {
    aten.to, aten._to_copy, aten.rsqrt, aten.reciprocal, aten.lerp, aten.where, aten.masked_fill, aten.addcmul, aten.addcdiv, aten.log,
    *COMPARISONS, *LOGIC, *NOT,
}  # fmt: skip
"""Calls whose value has the axes of what they read."""


def batch_first(form: NormalForm) -> NormalForm:
    """Return a network with the modules of `form` whose graph has the pictures in the first axis of every value.

    Raises:
        UserError: exit 2, naming the call, for a value whose pictures are in another axis, if neither RULES nor EACH_NUMBER
            holds the call. Linear layers, elementwise modules and BatchNorm1d are known, too.
    """
    to = Writer(form)
    for node in form.captured.graph.nodes:
        try:
            _write(to, node)
        except ValueError as fault:
            raise refused(form, source(node) if node.op == "output" else node, str(fault)) from fault
    made = copy.copy(form)
    made.captured, made._run = replace(form.captured, graph=to.graph), None
    return made


def _write(to: Writer, node: fx.Node) -> None:
    read = [to.axes[each] for each in node.all_input_nodes if each in to.axes]
    if all(axis.is_first for axis in read):
        _write_first(to, node, bool(read))
    elif node.op == "output":
        raise ValueError(ANSWER)
    elif lost := [each for each in sources(node) if each not in to.axes]:
        raise ValueError(f"it reads {lost[0]}, of which the axis of the pictures is not known")
    elif is_size(node):
        pass  # new calls name their sizes as numbers
    elif (rule := RULES.get(packet(node))) is not None:
        rule(to, node)
    elif on_maps(to, node):
        pass
    elif node.op == "call_module":
        _write_module(to, node)
    elif node.target is operator.getitem:
        to.copy(node, to.axes[source(node)].resized(shape_of(node)))
    elif packet(node) in EACH_NUMBER:
        axis = to.beside(node.all_input_nodes).resized(shape_of(node))
        to.copy(node, axis, to.aligned(node.all_input_nodes, axis))
    else:
        raise ValueError(MOVED)


def _write_first(to: Writer, node: fx.Node, reads_pictures: bool) -> None:
    """Write a node that reads pictures in first axes alone, or none."""
    if reads_pictures and packet(node) in MOVING:
        try:
            RULES[packet(node)](to, node)
            return
        except ValueError:  # raised before anything is written
            pass  # the rule that gives it an operation says what it cannot do
    shape, axis = node.meta.get("shape"), None
    if shape and shape[0] is None and None not in shape[1:]:
        axis = BatchAxis.first(shape[1:])
    to.copy(node, axis if axis is not None and axis.fits(node.meta.get("sizes")) else None)


def _write_module(to: Writer, node: fx.Node) -> None:
    found, axis = module(to.form, node), to.axes[source(node)]
    if isinstance(found, nn.Linear):
        if not axis.after:
            raise ValueError(LAST)
    elif isinstance(found, nn.BatchNorm1d) and axis.rank == 2 and axis.place == 0:
        _write_norm(to, node, axis)
        return
    elif not isinstance(found, (*ELEMENTWISE, Quantizer, CodedValue)):
        raise ValueError(MOVED)
    to.copy(node, axis.resized(shape_of(node)))


def _write_norm(to: Writer, node: fx.Node, axis: BatchAxis) -> None:
    """Write a batch norm of (pictures and places, channels) on (pictures, channels, places), as in LeViT."""
    places, (channels,) = prod(axis.apart[:-1]), axis.after
    rows = to.step(node, (places, channels), aten.reshape.default, to.new[source(node)], [-1, places, channels])
    columns = to.step(node, (channels, places), aten.permute.default, rows, [0, 2, 1])
    normed = to.graph.node_copy(node, lambda _: columns)
    normed.meta = dict(columns.meta)
    back = to.step(node, (places, channels), aten.permute.default, normed, [0, 2, 1])
    to.record(node, to.step(node, axis.apart, aten.reshape.default, back, [-1, *axis.apart]), axis)
