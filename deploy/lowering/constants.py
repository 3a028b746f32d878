"""Values that depend on no picture: coordinates, position codes, masks of windows. They become tensors of the network.

Such code reads the size of a value, makes numbers of it, and often lays them out once for each picture.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from models.graph.calls import BATCH, changes, packet, source
from models.graph.capture.inplace import roots
from models.graph.channels.labels import SHAPES
from models.graph.flow import is_size
from models.graph.normal import NormalForm


def with_constants(form: NormalForm) -> NormalForm:
    """Return a network with the modules of `form` whose graph reads these values as tensors, one for all pictures.

    A value that differs between pictures stays as it is, such as torch.arange over the pictures.
    """
    nodes = list(form.captured.graph.nodes)
    memory = roots(form.captured.graph)
    fixed = _fixed(nodes, memory)
    own = _of_tensors_alone(nodes, memory)
    wanted = [node for node in nodes if _is_wanted(node, fixed - own)]
    written = [node for node in wanted if not _is_read_too_early(node, nodes, memory, fixed)]
    found = {node: value for node, value in _values(form, written).items() if value is not None}
    if not found:
        return form
    made, graph = copy.copy(form), fx.Graph()
    made._buffers = dict(form._buffers)
    new: dict[fx.Node, fx.Node] = {}
    is_complete = {*wanted} == found.keys()  # else a value that stays may need what is written
    spare = []  # nodes of the new graph that nothing may need any more
    for node in nodes:
        new[node] = graph.node_copy(node, lambda each: new[each])
        if node in fixed and (is_complete or not changes(node)):
            spare.append(new[node])
        if node in found:
            name = f"constant_{len(made._buffers)}"
            made.register_buffer(name, found[node], persistent=False)
            new[node] = graph.get_attr(name)
            new[node].meta = {**node.meta, "shape": tuple(found[node].shape), "sizes": None, "held": True}
    for each in reversed(spare):
        if not each.users:
            graph.erase_node(each)
    made.captured, made._run = replace(form.captured, graph=graph), None
    return made


def _fixed(nodes: Collection[fx.Node], memory: dict[fx.Node, fx.Node]) -> set[fx.Node]:
    """Return the nodes whose values depend on no number of a picture: on the network's tensors and on sizes alone."""
    written: set[fx.Node] = set()  # memory into which a number of a picture is written
    while True:
        found: set[fx.Node] = set()
        for node in nodes:
            reads = [each for each in node.all_input_nodes if not (packet(node) in SHAPES and each is source(node))]
            draws = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            called = node.op.startswith("call_") and not draws and {*reads} <= found
            if (node.op == "get_attr" or is_size(node) or called) and memory[node] not in written:
                found.add(node)
        more = {memory[source(node)] for node in nodes if changes(node) and node not in found} - written
        if not more:
            return found
        written |= more


def _of_tensors_alone(nodes: Collection[fx.Node], memory: dict[fx.Node, fx.Node]) -> set[fx.Node]:
    """Return the nodes that compute on the network's tensors alone, without sizes and writes. Other rules know them."""
    written, found = {memory[source(node)] for node in nodes if changes(node)}, set[fx.Node]()
    for node in nodes:
        computed = node.all_input_nodes and {*node.all_input_nodes} <= found and memory[node] not in written
        if node.op == "get_attr" or computed:
            found.add(node)
    return found


def _is_wanted(node: fx.Node, fixed: set[fx.Node]) -> bool:
    """Return whether a call outside `fixed` reads the numbers of a value of `fixed`."""
    if node not in fixed or is_size(node) or node.meta.get("shape") is None:
        return False
    return any(user not in fixed and packet(user) not in SHAPES and not is_size(user) for user in node.users)


def _is_read_too_early(
    node: fx.Node, nodes: list[fx.Node], memory: dict[fx.Node, fx.Node], fixed: set[fx.Node]
) -> bool:
    """Return whether a call outside `fixed` reads a value before all of it is written."""
    writes = [place for place, each in enumerate(nodes) if changes(each) and memory[source(each)] is memory[node]]
    return bool(writes) and any(user not in fixed and nodes.index(user) < writes[-1] for user in node.users)


def _values(form: NormalForm, wanted: list[fx.Node]) -> dict[fx.Node, Tensor | None]:
    """Return each value, with one row where pictures have equal ones; None where they have not."""
    if not wanted:
        return {}
    seen: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found = super().run_node(n)
            if n in wanted:
                seen[n] = found
            return found

    tensor = next(form.parameters())
    Recorder(form, graph=form.captured.graph).run(
        torch.zeros(BATCH, *form.captured.picture, dtype=tensor.dtype, device=tensor.device)
    )
    return {node: _one(node, seen[node]) for node in wanted}


def _one(node: fx.Node, value: Tensor) -> Tensor | None:
    rows = [axis for axis, size in enumerate(node.meta["shape"]) if size is None]
    if not rows:
        return value
    return value[:1].clone() if rows == [0] and len(value) == BATCH and value[0].equal(value[1]) else None
