"""of_no_picture(graph): the values of a graph that are the same for any picture of one size."""

from __future__ import annotations

import torch
from torch import fx

from models.graph.aliases import roots
from models.graph.calls import changes, packet, source
from models.graph.channels.labels import SHAPES
from models.graph.flow import is_size


def of_no_picture(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose values depend on no number of a picture: on the network's tensors and on sizes alone."""
    nodes, memory = list(graph.nodes), roots(graph)
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
