"""Values of a graph that share memory, and the memory that it writes into."""

from __future__ import annotations

from torch import fx

from models.graph.calls import changes, schema, source


def written(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose memory the graph writes into."""
    memory = roots(graph)
    return {memory[source(node)] for node in graph.nodes if changes(node)}


def roots(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return for each value the first value in the same memory."""
    found: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        shared = _shares_with(node)
        found[node] = node if shared is None else found[shared]
    return found


def _shares_with(node: fx.Node) -> fx.Node | None:
    """Return the argument whose memory a call's result may share: for a view, a change, or an entry of a list."""
    if node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem":
        return source(node)
    said = schema(node)
    if said and any(value.alias_info for value in said.returns):
        for argument, value in zip(said.arguments, node.args, strict=False):
            if argument.alias_info and isinstance(value, fx.Node):
                return value
    return None
