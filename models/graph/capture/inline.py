"""Inlining of `with torch.no_grad():` and of autocast that is off: torch.export puts their code into a graph of its own.

Inlined layers can be pruned and quantized. Values computed without gradients are detached.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from models.check import Misdeclared
from models.graph import calls

GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled
"""Arguments: whether gradients are on, the body, the body's inputs."""
AUTOCAST = torch.ops.higher_order.wrap_with_autocast
"""Arguments: device, dtype, whether it is on, whether it caches, the body, the body's inputs."""


def inline(module: fx.GraphModule, arch: str) -> None:
    """Inline them in the graph of a module.

    Args:
        arch: the network's name in messages.

    Raises:
        Misdeclared: exit 2 for autocast that is on, for torch.vmap, and for other calls with a body, such as torch.cond.
    """
    graph = module.graph
    while call := next((node for node in graph.nodes if node.target in (GRADIENTS, AUTOCAST)), None):
        settings = call.args[: 1 if call.target is GRADIENTS else 4]
        body, *inputs = call.args[len(settings) :]
        inner = _named_apart(module, body.target)
        if call.target is AUTOCAST and settings[2]:
            place = next((line for line in map(calls.line, inner.nodes) if line), "forward")
            raise Misdeclared(
                f"--arch {arch}: its code turns autocast on ({place})",
                "leave autocast out of forward: --precision chooses the precision of training",
            )
        with graph.inserting_before(call):
            given = dict(zip(inner.find_nodes(op="placeholder"), inputs, strict=True))
            outputs: Any = graph.graph_copy(inner, given)
            if settings == (False,):
                outputs = [_detached(graph, value) for value in outputs]
        for user in [*call.users]:  # each takes one of the outputs
            user.replace_all_uses_with(outputs[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(call)
        graph.erase_node(body)
    if any(getattr(node.target, "__module__", "").startswith("torch._functorch") for node in graph.nodes):
        raise Misdeclared(
            f"--arch {arch}: its code calls torch.vmap or torch.func",
            "compute on the whole batch, by calls that broadcast",
        )
    if bodies := graph.find_nodes(op="get_attr"):
        user = next(iter(bodies[0].users))
        raise Misdeclared(
            f"--arch {arch}: its code calls {user.target}, whose layers cannot be changed",
            "compute without it, for example both branches and torch.where",
        )


def _named_apart(module: fx.GraphModule, name: str) -> fx.Graph:
    """Return the graph of a body. The bodies inside it move to the module, under names of their own."""
    body = getattr(module, name)
    for node in body.graph.find_nodes(op="get_attr"):
        held = getattr(body, node.target)
        node.target = f"{name}_{node.target}"
        setattr(module, node.target, held)
    return body.graph


def _detached(graph: fx.Graph, value: fx.Node) -> fx.Node:
    if not (isinstance(value.meta["val"], Tensor) and value.meta["val"].is_floating_point()):
        return value
    found = graph.call_function(torch.ops.aten.detach.default, (value,))
    found.meta.update(value.meta)
    return found
