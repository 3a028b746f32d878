"""What a network costs: parameters, multiply-accumulates, bits, memory; layer by layer.

A module whose tensors are stored in fewer than 32 bits says so itself, with `stored_bits()` and `weight_bits`;
one that keeps its numbers as buffers counts them with `values()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import nn


@dataclass
class LayerCost:
    """One layer on one picture: MACs of convolutions and linear layers, bits of all tensors kept for inference."""

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


def _stored(module: nn.Module, met: dict[nn.Parameter, int]) -> tuple[int, int]:
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
    modules that share a parameter. What else holds tensors follows without MACs or output: layers that did not run
    ("not run") and modules around others. Every module's training mode is put back.
    """
    rows: list[LayerCost] = []
    seen: set[str] = set()
    met: dict[nn.Parameter, int] = {}

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            params, bits = (0, 0) if name in seen else _stored(module, met)
            seen.add(name)
            kind, shape, width = type(module).__name__, tuple(output.shape[1:]), getattr(module, "weight_bits", 32)
            rows.append(LayerCost(name, kind, shape, params, _macs(module, output), bits, width))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if _is_layer(module)]
    like = next(t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()(torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype))
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()
    return [*rows, *_others(model, seen, met)]


def _macs(module: nn.Module, output: torch.Tensor) -> int:
    """Multiply-accumulates on one picture; only convolutions and linear layers have any."""
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        return 0
    weight: torch.Tensor | None = getattr(module, "weight", None)
    if weight is None:  # a merged layer holds codes alone
        weight = module.get_buffer("codes")
    return prod(weight.shape[1:]) * prod(output.shape[1:])


def _others(model: nn.Module, seen: set[str], met: dict[nn.Parameter, int]) -> Iterator[LayerCost]:
    """What holds tensors besides the modules in `seen`, which ran: layers that did not, and modules around others."""
    for name, module in model.named_modules():
        if name in seen or getattr(module, "part_of_layer", False):
            continue
        params, bits = _stored(module, met)
        if bits:
            kind = "not run" if _is_layer(module) else type(module).__name__
            yield LayerCost(name or "(itself)", kind, (0,), params, 0, bits, getattr(module, "weight_bits", 32))


def _parameters(module: nn.Module) -> int:
    """How many numbers a module itself holds: its parameters, or what it says."""
    count = getattr(module, "values", None)
    return count() if count is not None else sum(p.numel() for p in module.parameters(recurse=False))


def _is_layer(module: nn.Module) -> bool:
    """A leaf, or a layer with quantizers inside: those belong to the layer."""
    return isinstance(module, (nn.Conv2d, nn.Linear)) or (
        not isinstance(module, nn.Identity)
        and not any(True for _ in module.children())
        and not getattr(module, "part_of_layer", False)
    )


def total(rows: list[LayerCost], what: str) -> int:
    """Sum of `params`, `macs`, `bits` or `output_bytes`."""
    return sum(getattr(row, what) for row in rows)
