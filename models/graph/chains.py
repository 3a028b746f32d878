"""Chains of a layer and the batch norm directly behind it, which can be folded into the layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.graph.flow import ends, module, places, read_apart, readers
from models.graph.normal import NormalForm


@dataclass(frozen=True)
class Chain:
    """A batch norm that reads only the output of one layer, and that layer.

    Args:
        layer: name of the convolution or linear layer.
        norm: name of the batch norm.
        pool: name of the max-pool between the two, None without one.
    """

    layer: str
    norm: str
    pool: str | None = None


def chains(form: NormalForm) -> list[Chain]:
    """Return all chains, in the order of the graph.

    A layer that runs at several places is part of a chain if the same batch norm follows each of them.
    """
    found, calls, apart = [], places(form), read_apart(form)
    for name, nodes in calls.items():
        norm = form.get_submodule(name)
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None or name in apart:
            continue
        before = [_before(form, node) for node in nodes]
        layers = {layer.target for layer, _ in before if layer is not None}
        pools = {pool for _, pool in before}
        if len(layers) != 1 or len(pools) != 1 or any(layer is None for layer, _ in before):
            continue
        layer = str(layers.pop())
        if len(calls[layer]) == len(nodes) and fits(form.get_submodule(layer), norm, nodes[0]):
            found.append(Chain(layer, name, pools.pop()))
    return found


def _before(form: NormalForm, norm: fx.Node) -> tuple[fx.Node | None, str | None]:
    """Return the layer whose only reader is this batch norm, and the name of the max-pool between them."""
    source, pool = norm.all_input_nodes[0], None
    if isinstance(module(form, source), nn.MaxPool2d) and len(readers(source)) == 1:
        source, pool = source.all_input_nodes[0], str(source.target)
    alone = isinstance(module(form, source), (nn.Conv2d, nn.Linear)) and len(readers(source)) == 1
    return (source, pool) if alone else (None, None)


def fits(layer: nn.Module, norm: _BatchNorm, node: fx.Node) -> bool:
    """Return whether a norm's channels are a layer's rows. For a linear layer, its output must be (B, C)."""
    if isinstance(layer, nn.Linear):
        return layer.out_features == norm.num_features and len(node.meta["shape"]) == 2
    return isinstance(layer, nn.Conv2d) and layer.out_channels == norm.num_features


def unfolded(form: NormalForm) -> list[str]:
    """Return the names of the batch norms that run and are in no chain."""
    folded = {chain.norm for chain in chains(form)}
    return [n for n in places(form) if isinstance(form.get_submodule(n), _BatchNorm) and n not in folded]


def read_by_sign(form: NormalForm) -> set[str]:
    """Return the names of the batch norms whose readers all use only the output's sign, because they binarize it."""

    def looks_at_signs(node: fx.Node) -> bool:
        found = module(form, node)
        return getattr(getattr(found, "input_quantizer", found), "sign_alone", False)

    return {
        name
        for name, nodes in places(form).items()
        if isinstance(form.get_submodule(name), _BatchNorm)
        and all((read := ends(form, node)) and all(map(looks_at_signs, read)) for node in nodes)
    }
