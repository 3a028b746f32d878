"""Values that depend on no picture: coordinates, position codes, masks of windows. They become tensors of the network.

Such code reads the size of a value, makes numbers of it, and often lays them out once for each picture.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace

from torch import Tensor, fx

from models.graph.aliases import roots
from models.graph.calls import BATCH, changes, packet, source
from models.graph.channels.labels import SHAPES
from models.graph.fixed import of_no_picture
from models.graph.flow import is_size
from models.graph.normal import NormalForm
from models.graph.runs import run_and_look

COUNTS = (BATCH, BATCH + 1, BATCH + 3)
"""Numbers of pictures for which a value must be the same."""


def with_constants(form: NormalForm) -> NormalForm:
    """Return a network with the modules of `form` whose graph reads these values as tensors, one for all pictures.

    A value that differs between pictures, or with their number, stays as it is.
    """
    nodes = list(form.captured.graph.nodes)
    memory = roots(form.captured.graph)
    fixed = of_no_picture(form.captured.graph)
    place = {node: number for number, node in enumerate(nodes)}
    written = {memory[source(node)]: place[node] for node in nodes if changes(node)}  # the last write into each
    own = _of_tensors_alone(nodes, memory, written)
    wanted = [node for node in nodes if _is_wanted(node, fixed - own)]
    settled = [
        node
        for node in wanted
        if all(user in fixed or place[user] > written.get(memory[node], -1) for user in node.users)
    ]
    found = {node: value for node, value in _values(form, settled).items() if value is not None}
    is_complete = {*wanted} == found.keys()
    if not is_complete:  # a value that stays may need what is written, and its state between two writes
        found = {node: value for node, value in found.items() if memory[node] not in written}
    if not found:
        return form
    made, graph = copy.copy(form), fx.Graph()
    made._buffers = dict(form._buffers)
    new: dict[fx.Node, fx.Node] = {}
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


def _of_tensors_alone(
    nodes: Collection[fx.Node], memory: dict[fx.Node, fx.Node], written: Collection[fx.Node]
) -> set[fx.Node]:
    """Return the nodes that compute on the network's tensors alone, without sizes and writes.

    Builder.hold computes them without a run of the network.
    """
    found: set[fx.Node] = set()
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


def _values(form: NormalForm, wanted: list[fx.Node]) -> dict[fx.Node, Tensor | None]:
    """Return each value, with one row where pictures have equal ones; None if it depends on the picture or their number."""
    if not wanted:
        return {}
    runs = [_run(form, wanted, count) for count in COUNTS]
    return {node: _one([run[node] for run in runs], node.meta["shape"]) for node in wanted}


def _run(form: NormalForm, wanted: list[fx.Node], count: int) -> dict[fx.Node, Tensor]:
    """Return values of a run on so many pictures."""
    seen: dict[fx.Node, Tensor] = {}
    run_and_look(form, count, lambda node, value: seen.update({node: value} if node in wanted else {}))
    return {node: value.clone() for node, value in seen.items()}  # with all that was written into them


def _one(values: list[Tensor], shape: Sequence[int | None]) -> Tensor | None:
    """Return what the values of all runs have in common, as one row if the first axis is that of the pictures."""
    if None not in shape:
        return values[0] if all(value.equal(values[0]) for value in values) else None
    if [axis for axis, size in enumerate(shape) if size is None] != [0]:
        return None
    row = values[0][:1]
    same = all(
        len(value) == count and value.equal(row.expand_as(value)) for value, count in zip(values, COUNTS, strict=True)
    )
    return row if same else None
