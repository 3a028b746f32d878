"""Operations that PyTorch itself writes with others: torch.multiply is torch.mul, torch.hstack is torch.cat.

The rules of the toolkit know few of these names, and PyTorch has more than 300. So a graph gets the calls that they stand for.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from models.graph import calls
from models.graph.capture.export import silent
from models.graph.capture.fakes import unguarded

aten = torch.ops.aten

WHOLE = frozenset({
    "_weight_norm", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "alpha_dropout", "batch_norm", "contiguous", "conv1d", "conv2d",
    "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "dropout", "einsum", "expand_as",
    "feature_dropout", "flatten", "group_norm", "gru", "instance_norm", "layer_norm", "linear", "log_sigmoid",
    "log_softmax", "lstm", "matmul", "max_pool2d", "max_pool3d", "pad", "prelu", "relu6", "reshape", "reshape_as",
    "rms_norm", "rnn_relu", "rnn_tanh", "rrelu", "scaled_dot_product_attention", "selu", "softmax", "split", "square",
    "to", "unflatten", "view_as",
})  # fmt: skip
"""The names that keep their call: a rule knows them, or, as recurrent layers, they stand for one call a time step.

_weight_norm makes its tensors contiguous. A trace of contiguous tensors lacks that step, and training lays weights out anew.
"""

RESIZES = "upsample"
"""In names that keep their call, too: the inner call rounds the scale differently."""
COMPOSITE = "CompositeImplicitAutograd"


def write_out(graph: fx.Graph) -> None:
    """Replace the calls of composite operations by the calls that PyTorch computes them by.

    Those of WHOLE stay, and those whose code reads memory, which has none while it is traced: bilinear.
    """
    for node in [*graph.nodes]:
        if not _is_composite(node):
            continue
        given, form = tree_flatten((node.args, node.kwargs))
        sources = [value for value in given if isinstance(value, fx.Node)]
        inner = _traced(node, given, form, sources)
        if inner is None or not all(_holds_in_any_type(each) for each in inner.nodes):
            continue
        with graph.inserting_before(node):
            places = dict(zip(inner.find_nodes(op="placeholder"), sources, strict=True))
            found: Any = graph.graph_copy(inner, places)
        for source in inner.nodes:
            if source.op == "call_function":
                places[source].meta = {**node.meta, "val": source.meta["val"]}
        _replace(graph, node, found)


def _is_composite(node: fx.Node) -> bool:
    packet, value, target = calls.packet(node), node.meta.get("val"), cast(Any, node.target)
    if packet is None or packet.__name__.removesuffix("_") in WHOLE or RESIZES in packet.__name__:
        return False
    tensors = all(isinstance(leaf, Tensor) for leaf in tree_leaves(value))
    return tensors and torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), COMPOSITE)


def _holds_in_any_type(node: fx.Node) -> bool:
    """Return whether an inner call gives values, and names no type: another copy of the network computes in another type."""
    if node.op != "call_function" or node.target is aten.scalar_tensor.default:  # sums and products convert one number
        return True
    names_type = any(isinstance(leaf, torch.dtype) for leaf in tree_leaves((node.args, node.kwargs)))
    return "val" in node.meta and not names_type


def _traced(node: fx.Node, given: list[Any], form: Any, sources: list[fx.Node]) -> fx.Graph | None:
    """Return the graph of the calls inside a call, whose inputs are the nodes that the call reads; None if it has no trace."""

    def run(*values: Any) -> Any:
        of = dict(zip(sources, values, strict=True))
        args, kwargs = tree_unflatten([of[leaf] if isinstance(leaf, fx.Node) else leaf for leaf in given], form)
        return cast(Any, node.target).decompose(*args, **kwargs)

    values = [source.meta["val"] for source in sources]
    with silent(), unguarded(values):
        try:
            return make_fx(run)(*values).graph
        except RuntimeError:
            return None


def _replace(graph: fx.Graph, node: fx.Node, found: Any) -> None:
    """Let the readers of a call read what its inner calls return; a reader of a list takes one of its entries."""
    if isinstance(found, fx.Node):
        node.replace_all_uses_with(found)
    else:
        for user in [*node.users]:
            user.replace_all_uses_with(found[user.args[1]])
            graph.erase_node(user)
    graph.erase_node(node)
