"""Measure the cost of a network layer by layer: parameters, multiply-accumulates, bits, memory.

A module that stores tensors in fewer than 32 bits reports this by `stored_bits()` and `weight_bits`. A module that
keeps its numbers as buffers counts them by `values()`. A captured network also has rows for its ATen calls, see
graph/costs.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from models.graph.normal import NormalForm, picture_of

if TYPE_CHECKING:
    from models.graph.costs import Call


ATEN = "ATen"
"""The kind of a row that is not a module."""


@dataclass
class LayerCost:
    """The cost of one layer on one picture: multiply-accumulates, and the bits of all tensors kept for inference.

    Args:
        name: a module's name, or, for an ATen call (kind ATEN), the module whose forward runs it and the operation.
        macs: of convolutions, linear layers and, in a captured network, matrix products and attention.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: int
    bits: int
    weight_bits: int

    @property
    def output_bytes(self) -> int:
        return 4 * prod(self.shape)


def stored_bits(module: nn.Module) -> int:
    """Return the bits of a module's own tensors: 32 a number, unless it reports others. BN counters are not counted."""
    if (say := getattr(module, "stored_bits", None)) is not None:
        return say()
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return sum(32 * tensor.numel() for name, tensor in own if name != "num_batches_tracked")


def _stored(module: nn.Module, met: dict[Tensor, int]) -> tuple[int, int]:
    """Return a module's number of parameters and its stored bits, without parameters shared with earlier modules.

    Args:
        met: the parameters of earlier modules, and the bits of each of their numbers; this module's are added.
    """
    params, bits = _parameters(module), stored_bits(module)
    for name, parameter in module.named_parameters(recurse=False):
        width = getattr(module, "weight_bits", 32) if name == "weight" else 32
        before = met.get(parameter, 0)
        params -= parameter.numel() if before else 0
        bits -= min(before, width) * parameter.numel()
        met[parameter] = max(before, width)
    return params, bits


@torch.no_grad()
def layers(model: nn.Module, image_size: int = 32) -> list[LayerCost]:
    """Run one black picture through the network in eval mode, and list the leaf modules in the order they ran.

    A module that runs twice has two rows, with all of its MACs in each and its storage in the first. Two modules that
    share a parameter are counted in the same way. In a captured network, an ATen call that multiplies or reads stored
    tensors has a row as well. Other modules with tensors follow without MACs or output: layers that did not run ("not
    run"), and modules around others. A captured network has no such rows, as its tensors that evaluation does not use
    are not counted. Every module's training mode is restored.

    Args:
        image_size: side of the picture; a captured network uses the size it was captured for.
    """
    table = _Table()
    handles = [
        module.register_forward_hook(table.module(name)) for name, module in model.named_modules() if _is_layer(module)
    ]
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        if isinstance(model, NormalForm):
            from models.graph import costs  # imports the graph code, for captured networks only

            costs.run(model, _black(model, image_size), table.call)
        else:
            model(_black(model, image_size))
            table.rows.extend(_others(model, table))
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()
    return table.rows


def _black(model: nn.Module, image_size: int) -> Tensor:
    like = next(t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return torch.zeros(1, *picture_of(model, image_size), device=like.device, dtype=like.dtype)


class _Table:
    """The rows of a network, collected while it runs.

    Attributes:
        seen: names of the modules that have run.
        met: see `_stored`.
    """

    def __init__(self) -> None:
        self.rows: list[LayerCost] = []
        self.seen: set[str] = set()
        self.met: dict[Tensor, int] = {}

    def module(self, name: str) -> Any:
        """Return a forward hook for a module."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            params, bits = (0, 0) if name in self.seen else _stored(module, self.met)
            self.seen.add(name)
            kind, width = type(module).__name__, getattr(module, "weight_bits", 32)
            self.rows.append(LayerCost(name, kind, _shape(output), params, _macs(module, inputs, output), bits, width))

        return hook

    def call(self, call: Call) -> None:
        """Add a row for an ATen call if it multiplies, or is the first to read one of the network's tensors."""
        fresh = [tensor for tensor in call.own if tensor not in self.met]
        self.met.update(dict.fromkeys(fresh, 32))
        if call.macs or fresh:
            params = sum(tensor.numel() for tensor in fresh if isinstance(tensor, nn.Parameter))
            bits = 32 * sum(tensor.numel() for tensor in fresh)
            self.rows.append(LayerCost(call.name, ATEN, _shape(call.value), params, call.macs, bits, 32))


def _shape(output: Any) -> tuple[int, ...]:
    """Return the shape of a module's (first) output for one picture; sizes of windows or of sequences stay in it."""
    shape = tuple(next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)).shape)
    return shape[1:] if shape[:1] == (1,) else shape


def _macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Return the multiply-accumulates of a run; only convolutions and linear layers have any.

    Each number of the output is a sum over a filter; in a transposed convolution, a filter spreads each number of the
    input.
    """
    if not isinstance(module, (_ConvNd, nn.Linear)):
        return 0
    weight: Tensor | None = getattr(module, "weight", None)
    if weight is None:  # a merged layer holds only codes
        weight = module.get_buffer("codes")
    over = inputs[0] if isinstance(module, _ConvTransposeNd) else output
    return prod(weight.shape[1:]) * over.numel()


def _others(model: nn.Module, table: _Table) -> Iterator[LayerCost]:
    """Yield rows for the other modules with tensors: layers that did not run, and modules around others."""
    for name, module in model.named_modules():
        if name in table.seen or getattr(module, "part_of_layer", False):
            continue
        params, bits = _stored(module, table.met)
        if bits:
            kind = "not run" if _is_layer(module) else type(module).__name__
            yield LayerCost(name or "(itself)", kind, (0,), params, 0, bits, getattr(module, "weight_bits", 32))


def _parameters(module: nn.Module) -> int:
    """Return the number of a module's own parameters, or the number that its `values()` reports."""
    count = getattr(module, "values", None)
    return count() if count is not None else sum(p.numel() for p in module.parameters(recurse=False))


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module is a layer: a leaf, or a module with its own quantizers inside."""
    return (
        isinstance(module, (_ConvNd, nn.Linear))
        or hasattr(module, "stored_bits")
        or (
            not isinstance(module, nn.Identity)
            and not any(True for _ in module.children())
            and not getattr(module, "part_of_layer", False)
        )
    )


def total(rows: list[LayerCost], what: str) -> int:
    """Return the sum of `params`, `macs`, `bits` or `output_bytes`."""
    return sum(getattr(row, what) for row in rows)
