"""Changes of a graph that quantization asks for: what reads signs, one quantizer for all readers of a value, pool before norm.

Each changes the network that it is given.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn

from models.graph.calls import changes, packet
from models.graph.chains import chains
from models.graph.flow import hands_on, module, places, readers, sources, writes
from models.graph.normal import NormalForm

RECTIFIERS = (nn.ReLU, nn.ReLU6)
PADS = frozenset({torch.ops.aten.pad, torch.ops.aten.constant_pad_nd})


def read_before_relu(form: NormalForm, layers: Collection[str]) -> None:
    """Let these layers read what stands before a ReLU: behind it, every sign is +1.

    A ReLU that nothing else reads is gone then. One that a sum or a layer of other codes reads, too, stays for those.
    """
    if writes(form):
        return
    known: dict[fx.Node, fx.Node] = {}
    for name, calls in places(form).items():
        for node in calls if name in layers else []:
            node.args = (_without_relu(form, node.all_input_nodes[0], known), *node.args[1:])
    _clean(form)


def leave_out(form: NormalForm, names: Collection[str]) -> None:
    """Take ReLUs out of the graph, by name."""
    calls = places(form)
    for node in [node for name in names for node in calls.get(name, [])]:
        node.replace_all_uses_with(node.all_input_nodes[0])
    _clean(form)


def _without_relu(form: NormalForm, value: fx.Node, known: dict[fx.Node, fx.Node]) -> fx.Node:
    """A value as it would be without the ReLUs behind it; what hands it on (a max-pool, a concatenation) or pads it
    runs once more.

    Args:
        known: such values found before; this one is added.
    """
    if value not in known:
        known[value] = value
        if isinstance(module(form, value), RECTIFIERS):
            known[value] = _without_relu(form, value.all_input_nodes[0], known)
        elif hands_on(form, value) or packet(value) in PADS:
            before = {source: _without_relu(form, source, known) for source in sources(value)}
            if any(other is not source for source, other in before.items()):
                with form.captured.graph.inserting_after(value):
                    known[value] = form.captured.graph.node_copy(value, lambda node: before.get(node, node))
    return known[value]


def share_quantizers(form: NormalForm, layers: dict[str, Any]) -> None:
    """Let layers that read one value have one input quantizer, and the value be coded once.

    Args:
        layers: the quantized layers by name, each with the settings of its input's quantizer; None: it reads floats.
    """
    first: dict[str, str] = {}  # of each layer, the one whose quantizer it has

    def owner(name: str) -> str:
        return name if first.setdefault(name, name) == name else owner(first[name])

    groups: list[tuple[fx.Node, list[fx.Node]]] = []
    for value in [] if writes(form) else form.captured.graph.nodes:
        mine = [user for user in readers(value) if user.target in layers and layers[str(user.target)] is not None]
        for settings in dict.fromkeys(layers[str(user.target)] for user in mine):
            alike = [user for user in mine if layers[str(user.target)] == settings]
            names = list(dict.fromkeys(str(user.target) for user in alike))
            if len(names) > 1:
                groups.append((value, alike))
                for name in names[1:]:
                    first[owner(name)] = owner(names[0])
    for name in list(first):
        if owner(name) != name:
            layer: Any = form.get_submodule(name)
            layer.input_quantizer, layer.shares_input = form.get_submodule(owner(name)).input_quantizer, True
    for value, alike in groups:
        _code_once(form, value, alike, f"{owner(str(alike[0].target))}.input_quantizer")
    if groups:
        form.update()


def _code_once(form: NormalForm, value: fx.Node, alike: list[fx.Node], quantizer: str) -> None:
    with form.captured.graph.inserting_after(value):
        codes = form.captured.graph.create_node("call_module", quantizer, (value,))
    codes.meta.update(value.meta, owner=quantizer)
    for node in alike:
        node.args = (codes, *node.args[1:])


def pool_before_norm(form: NormalForm, pools: Collection[str] | None = None) -> None:
    """Put the max-pool behind a layer's batch norm between the two (XNOR-Net, arXiv 1603.05279, section 3.2).

    Args:
        pools: those that may be moved; None: all.
    """
    calls = places(form)
    for chain in chains(form):
        for norm in calls[chain.norm] if chain.pool is None else []:
            _swap(form, norm, pools)
    _clean(form)


def _swap(form: NormalForm, norm: fx.Node, pools: Collection[str] | None) -> None:
    """Take the max-pool that alone reads a norm, perhaps behind a ReLU, to its front."""
    last, following = norm, readers(norm)
    while len(following) == 1 and isinstance(module(form, following[0]), RECTIFIERS):
        last, following = following[0], readers(following[0])
    if len(following) != 1 or not isinstance(module(form, following[0]), nn.MaxPool2d):
        return
    pool = following[0]
    if pools is not None and pool.target not in pools:
        return
    norm.prepend(pool)
    pool.replace_all_uses_with(last)
    pool.args, norm.args = (norm.args[0],), (pool,)
    for node in (norm, last):
        node.meta["shape"] = pool.meta["shape"]


def _clean(form: NormalForm) -> None:
    """Take out what nothing reads any more, and run the graph as it is now."""
    form.captured.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or changes(node))
    form.captured.graph.lint()
    form.update()
