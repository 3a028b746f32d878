"""The flow of values in the graph of a normal form: their sources and readers, and bounds on their signs.

chains.py finds the batch norms behind layers. channels/ finds the channels that go together.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from models.graph.calls import SIZES, changes, packet, values
from models.graph.channels.labels import MOVES, SHAPES
from models.graph.normal import NormalForm

aten = torch.ops.aten

LAYER_CALLS = frozenset({
    aten.conv1d, aten.conv2d, aten.conv3d, aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d,
    aten.convolution, aten.linear,
})  # fmt: skip
"""Layers as calls: with a weight that is computed."""
COMPUTES = LAYER_CALLS | {
    aten.matmul, aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.einsum, aten.scaled_dot_product_attention,
}  # fmt: skip
"""Operations that compute like a layer but are no module: with computed weights, or of two values."""

PASSING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
_AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_TAKES = frozenset({aten.index_select, aten.index, aten.gather})
"""Operations that take numbers of their first argument at the places that another one tells."""
_BOUNDED = (nn.Sigmoid, nn.Hardsigmoid, nn.Tanh)
_POSITIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_POSITIVE_CALLS = frozenset({aten.abs, aten.square, aten.exp, aten.sqrt, aten.softmax, aten._softmax})
_KEEPS_SIGN = frozenset({
    aten.add, aten.mul, aten.div, aten.minimum, aten.mean, aten.sum, aten.amax, aten.amin, aten.pad,
    aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.adaptive_max_pool2d,
    aten.max_pool2d, aten.max_pool2d_with_indices,
})  # fmt: skip


def module(form: nn.Module, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, None for other nodes."""
    return form.get_submodule(str(node.target)) if node.op == "call_module" else None


def places(form: NormalForm) -> dict[str, list[fx.Node]]:
    """Return the calls of each module, by its name, in the order of the graph."""
    found: dict[str, list[fx.Node]] = defaultdict(list)
    for node in form.captured.graph.find_nodes(op="call_module"):
        found[str(node.target)].append(node)
    return dict(found)


def read_apart(form: NormalForm) -> set[str]:
    """Return the names of the modules whose tensors an operation reads directly. They cannot be replaced."""
    return {str(node.target).rpartition(".")[0] for node in form.captured.graph.find_nodes(op="get_attr")}


def other_names(form: NormalForm, layers: Collection[str]) -> dict[str, str]:
    """Return the other names of layers, such as a wrapper's, with the layer that each stands for: it has the same weight.

    Merged layers hold codes in place of a weight, and have no other name.
    """
    weights = {id(held): name for name in layers if (held := _weight(form.get_submodule(name))) is not None}
    found = {}
    for name, held in form.named_modules(remove_duplicate=False):
        layer = weights.get(id(_weight(held)))
        if layer is not None and name not in layers:
            found[name] = layer
    return found


def _weight(layer: nn.Module) -> torch.Tensor | None:
    return layer._parameters.get("weight")


def is_shared(form: NormalForm, tensor: torch.Tensor) -> bool:
    """Return whether more than one module uses a tensor, or an operation also reads it directly."""
    return sum(used is tensor for used in used_tensors(form)) > 1


def used_tensors(form: NormalForm) -> list[torch.Tensor]:
    """Return the tensors of the modules that the graph calls, once for each module, and those that operations read.

    Other modules hold tensors that evaluation does not use, or one of these under another of its names.
    """
    called = {form.get_submodule(name) for name in places(form)}
    parts = (part for top in called for m in top.modules() for part in (*m._parameters.values(), *m._buffers.values()))
    read = (attrgetter(str(node.target))(form) for node in form.captured.graph.find_nodes(op="get_attr"))
    return [*(part for part in parts if part is not None), *{id(held): held for held in read}.values()]


def is_layer(found: nn.Module | None) -> bool:
    """Return whether a module is a convolution of any kind or a linear layer."""
    return isinstance(found, (_ConvNd, nn.Linear))


def computes(form: nn.Module, node: fx.Node) -> bool:
    """Return whether a node computes like a layer, as a module or as an operation."""
    return is_layer(module(form, node)) or packet(node) in COMPUTES


def is_size(node: fx.Node) -> bool:
    """Return whether a node returns sizes, or integers computed from sizes, instead of values."""
    if packet(node) in SIZES:
        return True
    python = node.op == "call_function" and packet(node) is None
    return python and node.target is not operator.getitem and all(is_size(source) for source in node.all_input_nodes)


def readers(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that read the values of a node, not only its sizes."""
    return [user for user in node.users if not is_size(user) and packet(user) not in SHAPES]


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the node that alone reads a node's values, if nothing asks for its sizes; else None."""
    behind = readers(node)
    return behind[0] if len(behind) == len(node.users) == 1 else None


def sources(node: fx.Node) -> list[fx.Node]:
    """Return the nodes whose values a node reads, without the network's own tensors and what is computed from them alone."""
    return [source for source in node.all_input_nodes if not is_held(source) and not is_size(source)]


def is_held(node: fx.Node) -> bool:
    """Return whether a node gives a tensor of the network, or a value computed from such tensors alone."""
    return node.op == "get_attr" or bool(node.meta.get("held"))


def hands_on(form: nn.Module, node: fx.Node) -> bool:
    """Return whether a node only hands on numbers that it reads: moves, dropout (in evaluation), max-pools."""
    found = module(form, node)
    if found is not None:
        return isinstance(found, (*PASSING, nn.MaxPool2d))
    if packet(node) in (aten.to, aten._to_copy):
        kinds = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, torch.dtype)]
        return all(kind.is_floating_point for kind in kinds)  # a conversion to integers cuts numbers off
    return packet(node) in MOVES or node.target is operator.getitem


def ends(form: nn.Module, node: fx.Node) -> list[fx.Node]:
    """Return the nodes that compute with a value's numbers, behind all nodes that only hand them on."""
    found: dict[fx.Node, None] = {}
    met, todo = {node}, readers(node)
    while todo:
        at = todo.pop()
        if at in met:
            continue
        met.add(at)
        if hands_on(form, at):
            todo += readers(at)
        else:
            found[at] = None
    return list(found)


def writes(form: NormalForm) -> bool:
    """Return whether a call changes a value in place. Then the order of reads matters, and nothing may be moved."""
    return any(changes(node) for node in form.captured.graph.nodes)


def never_negative(form: NormalForm) -> set[fx.Node]:
    """Return the values that cannot be negative for any weights of the network.

    The set is empty if a call changes a value in place, because the value may then be negative.
    """
    found: set[fx.Node] = set()
    if writes(form):
        return found
    for node in form.captured.graph.nodes:
        if _is_positive(form, node, found):
            found.add(node)
    return found


def _is_positive(form: NormalForm, node: fx.Node, known: set[fx.Node]) -> bool:
    layer, call = module(form, node), packet(node)
    if isinstance(layer, nn.Hardtanh):
        return layer.min_val >= 0 or isinstance(layer, nn.ReLU6)
    if isinstance(layer, _POSITIVE) or call in _POSITIVE_CALLS:
        return True
    if call in (aten.clamp, aten.clamp_min):
        low: Any = values(node)["min"]
        return isinstance(low, (int, float)) and low >= 0
    before = [source for source in node.all_input_nodes if not is_size(source)]
    if call is aten.maximum:
        return any(source in known for source in before)
    if call in _TAKES:
        return node.args[0] in known
    given = (*node.args, *node.kwargs.values()) if call in _KEEPS_SIGN - {aten.pad} else ()  # alpha of a sum may be -1
    numbers = [x for x in given if isinstance(x, (int, float))]
    keeps = hands_on(form, node) or isinstance(layer, _AVERAGES) or call in _KEEPS_SIGN
    if call is aten.pad and (values(node).get("value") or 0) < 0:
        return False
    return keeps and bool(before) and all(source in known for source in before) and all(n >= 0 for n in numbers)


def unscaled(form: NormalForm) -> set[fx.Node]:
    """Return the values of unbounded size: sums of a layer, or values made from them without a norm or bound since."""
    found: set[fx.Node] = set()
    for node in form.captured.graph.nodes:
        made = computes(form, node)
        norm = isinstance(module(form, node), _BatchNorm) or "norm" in getattr(packet(node), "__name__", "")
        bounded = isinstance(module(form, node), _BOUNDED) or packet(node) in (aten.softmax, aten._softmax)
        if made or (not norm and not bounded and any(source in found for source in sources(node))):
            found.add(node)
    return found


def first_layers(form: NormalForm) -> tuple[str, ...]:
    """Return the names of the layers that read the picture, with no layer before them."""
    raw, found = set(), []
    for node in form.captured.graph.nodes:
        if node.op == "placeholder":
            raw.add(node)
        elif (before := sources(node)) and all(source in raw for source in before):
            if not computes(form, node):
                raw.add(node)
            elif node.op == "call_module":
                found.append(str(node.target))
    return tuple(dict.fromkeys(found))


def last_nodes(form: NormalForm) -> list[fx.Node]:
    """Return the nodes that compute like a layer and whose sums make the answer, with no layer behind them."""
    answer, found = set(), []
    for node in reversed(form.captured.graph.nodes):
        behind = readers(node)
        if node.op == "output" or (behind and all(reader in answer for reader in behind)):
            if computes(form, node):
                found.append(node)
            else:
                answer.add(node)
    return found[::-1]


def last_layers(form: NormalForm) -> tuple[str, ...]:
    """Return the names of the layers whose sums make the answer, with no layer behind them."""
    return tuple(dict.fromkeys(str(node.target) for node in last_nodes(form) if node.op == "call_module"))
