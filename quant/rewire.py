"""Graph changes for quantization: signs read before ReLUs, one quantizer for all readers of a value, pool before norm.

Each function changes its network in place.
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
    """Connect these layers to the value before a ReLU, because after it every sign is +1.

    A ReLU without other readers is removed. A ReLU that sums or layers with other codes read stays for them.
    """
    if writes(form):
        return
    known: dict[fx.Node, fx.Node] = {}
    for name, calls in places(form).items():
        for node in calls if name in layers else []:
            node.args = (_without_relu(form, node.all_input_nodes[0], known), *node.args[1:])
    _clean(form)


def leave_out(form: NormalForm, names: Collection[str]) -> None:
    """Remove ReLUs from the graph, by name."""
    calls = places(form)
    for node in [node for name in names for node in calls.get(name, [])]:
        node.replace_all_uses_with(node.all_input_nodes[0])
    _clean(form)


def _without_relu(form: NormalForm, value: fx.Node, known: dict[fx.Node, fx.Node]) -> fx.Node:
    """Return the value computed without the ReLUs before it.

    Operations that hand values on (a max-pool, a concatenation) or pad them are copied. Any other ends the search.

    Args:
        known: the results so far; this one is added.
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
    """Give layers that read one value one input quantizer, so that the value is quantized once.

    Args:
        layers: the settings of each quantized layer's input quantizer, by name; None for a float input.
    """
    first: dict[str, str] = {}  # for each layer, another whose quantizer it takes, or itself

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
    """Move max-pools from behind a layer's batch norm to before it (XNOR-Net, arXiv 1603.05279, section 3.2).

    Args:
        pools: names of the pools that may move; None for all.
    """
    calls = places(form)
    for chain in chains(form):
        for norm in calls[chain.norm] if chain.pool is None else []:
            _swap(form, norm, pools)
    _clean(form)


def _swap(form: NormalForm, norm: fx.Node, pools: Collection[str] | None) -> None:
    """Move the max-pool that is the only reader of a norm, perhaps behind a ReLU, to before the norm."""
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
        node.meta.update(shape=pool.meta["shape"], sizes=pool.meta["sizes"])


def _clean(form: NormalForm) -> None:
    """Remove operations that nothing reads and recompile the graph."""
    form.captured.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or changes(node))
    form.captured.graph.lint()
    form.update()
