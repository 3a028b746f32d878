"""The view of a network that training runs: the same parameters, with segments for the operations between layers."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from engine.errors import UserError
from engine.system import ranks
from engine.system.compiled import Unavailable
from engine.system.said import notice
from models.fused import loops
from models.fused.grid import Act
from models.fused.segment import Segment
from models.graph.flow import module, places, read_apart, readers, writes
from models.graph.normal import NormalForm, type_and_device
from models.layers import columns
from models.layers.bnfold import FoldedNorm
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.base import Quantizer

ACTS: dict[type, Act] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}


MANY = {"cpu": 2e10, "cuda": 4e11}
"""The fewest numbers between layers, in a whole training, for which loops save time: they take some seconds to compile."""
FEW = 2**21
"""The fewest numbers in a batch's output of a segment without codes for which a CPU's loop is quicker than torch's batch norm
and activation. A batch norm without an activation is as quick by torch."""


def chosen(form: NormalForm, asked: str, pictures: int, batch: int) -> nn.Module | None:
    """Return the view that a training runs, on the device of `form`; None: it runs `form` itself.

    Args:
        asked: the value of --fused: "auto", "on" or "off".
        pictures: number of pictures in the whole training, all epochs counted.
        batch: number of pictures in a batch.

    Raises:
        UserError: exit 2 for "on" without a working compiler, or with more than one rank.
    """
    device = type_and_device(form)[1]
    if ranks.count() > 1:
        if asked == "on":
            raise UserError(
                "--fused on: its loops know the pictures of one process", "leave --fused at auto under torchrun"
            )
        return None
    if asked == "off" or (asked == "auto" and not _pays(form, device, pictures, batch)):
        return None
    try:
        loops.trial(device)
    except Unavailable as fault:
        if asked == "on":
            raise UserError(f"--fused on: {fault}", "leave --fused at auto: training is slower then") from fault
        notice(f"training is slower than it could be: {fault}")
        return None
    return View(form, batch if asked == "auto" else None)


def _pays(form: NormalForm, device: torch.device, pictures: int, batch: int) -> bool:
    """Return whether there is something to replace, and numbers enough to repay the compiling."""
    if pictures * _numbers(form) < MANY[device.type] or writes(form):
        return False
    return bool(_pools(form)) or next(_segments(form, batch), None) is not None


def _numbers(form: NormalForm) -> int:
    """Return the count of numbers in the outputs of all nodes, for one picture."""
    return sum(_size(node) for node in form.captured.graph.nodes if isinstance(node.meta.get("shape"), tuple))


def _size(node: fx.Node) -> int:
    """Return the count of numbers of a node's output, for one picture."""
    return prod(size for size in node.meta["shape"] if size)


class View(nn.Module):
    """A replacement for a normal form in training: it computes the same, with the form's parameters and statistics.

    Operations other than batch norm, activation and quantizer run unchanged. If a call changes a value in place, all run
    unchanged.

    Args:
        form: the network, already on its device; it is not changed.
        batch: number of pictures in a batch: loops that do not pay with it are left out. None: take all.
    """

    def __init__(self, form: NormalForm, batch: int | None = None) -> None:
        super().__init__()
        self._form = (form,)  # in a tuple, so that nn.Module does not register it
        graph, new = fx.Graph(), dict[fx.Node, fx.Node]()
        segments, pools = ([], {}) if writes(form) else (_segments(form, batch), _pools(form))
        found = {chain[-1]: (chain, segment) for chain, segment in segments}
        inside = {node for chain, _ in found.values() for node in chain[:-1]}
        prefix = "segment"
        while any(str(node.target).startswith(prefix) for node in form.captured.graph.nodes):
            prefix += "_"
        for node in form.captured.graph.nodes:
            name = f"{prefix}{len(new)}"
            if node in found:
                chain, segment = found[node]
                self.add_module(name, segment)
                new[node] = graph.call_module(name, (new[chain[0].all_input_nodes[0]],))
            elif node in pools:
                self.add_module(name, Pooling(pools[node]))
                new[node] = graph.call_module(name, (new[node.all_input_nodes[0]],))
            elif node not in inside:
                new[node] = graph.node_copy(node, new.__getitem__)
        # a GraphModule would register the form's tensors a second time
        self._interpreter = fx.Interpreter(self, graph=graph)

    def __getattr__(self, name: str) -> Any:
        """Return the form's attribute, for names of the graph that this module lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_form"][0], name)

    def forward(self, x: Tensor) -> Tensor:
        return self._interpreter.run(x)


class Pooling(nn.Module):
    """A max-pool that runs the kernel of pool.py if it takes the input."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self._pool = (pool,)

    def forward(self, x: Any) -> Any:
        fits = isinstance(x, Tensor) and x.dtype in (torch.float32, torch.bfloat16) and x.requires_grad
        return loops.pooled(self._pool[0], x) if fits else self._pool[0](x)


def _pools(form: NormalForm) -> dict[fx.Node, nn.MaxPool2d]:
    """Return the max-pools that pool.py computes; none on a CPU."""
    if type_and_device(form)[1].type != "cuda":
        return {}
    every = ((node, module(form, node)) for node in form.captured.graph.nodes)
    return {node: pool for node, pool in every
            if type(pool) is nn.MaxPool2d and loops.fits(pool) and not _has_hooks(pool)}  # fmt: skip


def _segments(form: NormalForm, batch: int | None) -> Iterator[tuple[list[fx.Node], Segment]]:
    """Yield the nodes of each segment, in order, and the segment."""
    taken: set[fx.Node] = set()
    for node in form.captured.graph.nodes:
        if node not in taken and (found := _from(form, node, batch)) is not None:
            taken |= {*found[0]}
            yield found


def _from(form: NormalForm, first: fx.Node, batch: int | None) -> tuple[list[fx.Node], Segment] | None:
    """Return the nodes and the segment that begin with a node; None: there is no segment."""
    chain: list[fx.Node] = []
    at: fx.Node | None = first

    def take(fits: bool) -> bool:
        """Add the next node to the chain, if `fits` and its module has no hooks: hooks need a call of their module."""
        nonlocal at
        if not fits or at is None or _has_hooks(module(form, at)):
            return False
        chain.append(at)
        behind = readers(at)
        at = behind[0] if len(behind) == 1 and len(at.users) == 1 else None
        return True

    layer = module(form, first)
    known = isinstance(layer, QuantConv2d) or _is_quicker_here(form, first)
    layer = layer if isinstance(layer, nn.Conv2d) and take(known and _is_called_once(form, first)) else None
    while layer is not None and take(at is not None and isinstance(module(form, at), FoldedNorm)):
        pass
    norm = None if at is None else module(form, at)
    norm = norm if isinstance(norm, nn.BatchNorm2d) and take(_is_plain(form, at, norm)) else None
    act = ACTS.get(type(module(form, at))) if at is not None else None
    act = act if act is not None and take(True) else "none"
    quantizer = _quantizer(form, at, bool(chain))
    if quantizer is not None and at is not None and isinstance(module(form, at), Quantizer):
        take(True)
    if not chain or (layer is None and norm is None and quantizer is None):
        return None
    without_codes = type_and_device(form)[1].type == "cpu" and quantizer is None and not isinstance(layer, QuantConv2d)
    if without_codes and batch is not None and (act == "none" or batch * _size(chain[-1]) < FEW):
        return None
    return chain, Segment(layer, norm, act, quantizer)


def _has_hooks(found: nn.Module | None) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(found, kind, None) for kind in kinds)


def _is_called_once(form: NormalForm, node: fx.Node) -> bool:
    return len(places(form)[str(node.target)]) == 1


def _is_plain(form: NormalForm, node: fx.Node | None, norm: nn.BatchNorm2d) -> bool:
    """Return whether a norm is torch's BatchNorm2d, with tensors that nothing else reads."""
    plain = type(norm) is nn.BatchNorm2d
    return node is not None and plain and len(node.meta["shape"]) == 4 and str(node.target) not in read_apart(form)


def _is_quicker_here(form: NormalForm, node: fx.Node) -> bool:
    """Return whether a plain convolution before a norm is faster in a segment: with a bias, which the norm cancels, or
    on a GPU with few inputs.
    """
    layer, behind = module(form, node), readers(node)
    if type(layer) is not nn.Conv2d or len(behind) != 1 or len(node.users) != 1:
        return False
    norm, few = module(form, behind[0]), layer.weight.is_cuda and layer.in_channels <= columns.FEW
    return (layer.bias is not None or few) and isinstance(norm, nn.BatchNorm2d) and _is_plain(form, behind[0], norm)


def _quantizer(form: NormalForm, reader: fx.Node | None, follows: bool) -> Quantizer | None:
    """Return the quantizer that reads a value: a node of the graph, or the input quantizer of the layer that reads it.

    Args:
        follows: whether there is a segment that an input quantizer could end.
    """
    found = module(form, reader) if reader is not None else None
    if follows and isinstance(found, QuantConv2d):
        found = found.input_quantizer
    known = isinstance(found, Quantizer) and type(found).rule is not Quantizer.rule and not _has_hooks(found)
    return found if known and len(reader.meta["shape"]) == 4 else None  # type: ignore[union-attr,return-value]
