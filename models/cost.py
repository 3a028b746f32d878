"""What a network costs: parameters, multiply-accumulates, bits, memory; layer by layer.

A module whose tensors are stored in fewer than 32 bits says so itself, with `stored_bits()` and `weight_bits`;
one that keeps its numbers as buffers counts them with `values()`. A captured network has rows for its ATen calls, too:
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
"""The kind of rows that are no modules."""


@dataclass
class LayerCost:
    """One layer on one picture: multiply-accumulates, and the bits of all tensors kept for inference.

    Args:
        name: of a module, or of an ATen call (kind ATEN): the module whose forward runs it and the operation.
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
    """Bits of a module's own tensors: 32 each, unless it knows better. Counters are not needed to run a network."""
    if (say := getattr(module, "stored_bits", None)) is not None:
        return say()
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return sum(32 * tensor.numel() for name, tensor in own if name != "num_batches_tracked")


def _stored(module: nn.Module, met: dict[Tensor, int]) -> tuple[int, int]:
    """How many numbers a module holds and their bits, without what modules before it hold of the same parameters.

    Args:
        met: the parameters of the modules before and the bits of each number; this one's are added.
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
    """Run one black picture through the network in eval mode and list the leaf modules in the order they ran.

    A module that runs twice has two rows, with all of its MACs in each and what it stores in the first; so have two
    modules that share a parameter. In a captured network an ATen call that multiplies or reads stored tensors has a
    row as well. What else holds tensors follows without MACs or output: layers that did not run ("not run") and
    modules around others; a captured network has none, its tensors that evaluation does not use are not counted.
    Every module's training mode is put back.

    Args:
        image_size: side of the picture; a captured network has a picture of its own, and takes that.
    """
    table = _Table()
    handles = [
        module.register_forward_hook(table.module(name)) for name, module in model.named_modules() if _is_layer(module)
    ]
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        if isinstance(model, NormalForm):
            from models.graph import costs  # loads what walks graphs, for captured networks alone

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
    """The rows of a network, as it runs.

    Attributes:
        seen: names of the modules that have run.
        met: see `_stored`.
    """

    def __init__(self) -> None:
        self.rows: list[LayerCost] = []
        self.seen: set[str] = set()
        self.met: dict[Tensor, int] = {}

    def module(self, name: str) -> Any:
        """A forward hook."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            params, bits = (0, 0) if name in self.seen else _stored(module, self.met)
            self.seen.add(name)
            kind, width = type(module).__name__, getattr(module, "weight_bits", 32)
            self.rows.append(LayerCost(name, kind, _shape(output), params, _macs(module, inputs, output), bits, width))

        return hook

    def call(self, call: Call) -> None:
        """A row for an ATen call, if it multiplies or is the first to read a tensor of the network."""
        fresh = [tensor for tensor in call.own if tensor not in self.met]
        self.met.update(dict.fromkeys(fresh, 32))
        if call.macs or fresh:
            params = sum(tensor.numel() for tensor in fresh if isinstance(tensor, nn.Parameter))
            bits = 32 * sum(tensor.numel() for tensor in fresh)
            self.rows.append(LayerCost(call.name, ATEN, _shape(call.value), params, call.macs, bits, 32))


def _shape(output: Any) -> tuple[int, ...]:
    """Of an output (of several the first) for one picture; what a window or a step of a sequence is stays in it."""
    shape = tuple(next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)).shape)
    return shape[1:] if shape[:1] == (1,) else shape


def _macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Multiply-accumulates of a run; of modules only convolutions and linear layers have any.

    Each number of the output is a sum over a filter; in a transposed convolution each of the input is spread by one.
    """
    if not isinstance(module, (_ConvNd, nn.Linear)):
        return 0
    weight: Tensor | None = getattr(module, "weight", None)
    if weight is None:  # a merged layer holds codes alone
        weight = module.get_buffer("codes")
    over = inputs[0] if isinstance(module, _ConvTransposeNd) else output
    return prod(weight.shape[1:]) * over.numel()


def _others(model: nn.Module, table: _Table) -> Iterator[LayerCost]:
    """What holds tensors besides the modules that ran: layers that did not, and modules around others."""
    for name, module in model.named_modules():
        if name in table.seen or getattr(module, "part_of_layer", False):
            continue
        params, bits = _stored(module, table.met)
        if bits:
            kind = "not run" if _is_layer(module) else type(module).__name__
            yield LayerCost(name or "(itself)", kind, (0,), params, 0, bits, getattr(module, "weight_bits", 32))


def _parameters(module: nn.Module) -> int:
    """How many numbers a module itself holds: its parameters, or what it says."""
    count = getattr(module, "values", None)
    return count() if count is not None else sum(p.numel() for p in module.parameters(recurse=False))


def _is_layer(module: nn.Module) -> bool:
    """A leaf, or what has quantizers inside: those belong to it."""
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
    """Sum of `params`, `macs`, `bits` or `output_bytes`."""
    return sum(getattr(row, what) for row in rows)
