"""Quantize numbers and compute the pseudo-gradient by autograd, for curves.py to draw."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.layers.quantizers import kinds, made
from models.layers.quantizers.base import Quantizer, Signs, Steps
from models.layers.quantizers.promises import grid_of
from quant.quantizer_spec import STE, QuantizerSpec

POINTS = 401
REACH = 1.5
"""A filter's weights lie evenly from minus this to this. Training clips latent weights to [-1, 1]."""

START = 0.5
"""Half the range of the weights that a learned step starts from, narrow enough for the picture to show where it clips."""

SEEN = (-1.0, 3.0)
"""The range of the batch that a measured or learned activation range starts from; its numbers lie evenly."""


@dataclass(frozen=True)
class Curve:
    """One quantizer over a range.

    Args:
        x, value: (POINTS,) each, the input and its quantized value.
        slope: (POINTS,), of each value by its own input.
        by: of each value by a parameter of the quantizer, (POINTS,), by its name.
    """

    label: str
    x: Tensor
    value: Tensor
    slope: Tensor
    by: dict[str, Tensor] = field(default_factory=dict)


def names() -> list[str]:
    """Return the registered quantizers but the identity."""
    return [name for name in kinds.all_traits() if kinds.lookup(name).codes is not None]


def weights(name: str, bits: int) -> list[Curve]:
    """Quantize a filter of POINTS weights, once for each setting that changes its shape."""
    x = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    shape, found = (1, POINTS, 1, 1), []
    for label, spec in _variants(name, bits, STE[:2]).items():
        module = made.weight_quantizer(name, spec, x.reshape(shape) * (START / REACH)).double()
        found.append(curve(module, x, shape, label))
    return found


def activations(name: str, bits: int) -> list[Curve]:
    """Quantize an input of POINTS features, once for each setting; one training batch has set the range."""
    modules = {}
    for label, spec in _variants(name, bits, STE).items():
        for signed in (False, True) if spec.traits.follows_sign else (False,):
            module = made.input_quantizer(name, spec, signed).double().train()
            module(torch.linspace(*SEEN, POINTS, dtype=torch.float64).reshape(1, POINTS))
            words = (label, "may be negative" if signed else "behind a ReLU") if spec.traits.follows_sign else (label,)
            modules[", ".join(filter(None, words))] = module.eval()
    ends = [edge for module in modules.values() for edge in _edges(module)]
    low, high = min(ends), max(ends)
    x = torch.linspace(low - 0.2 * (high - low), high + 0.2 * (high - low), POINTS, dtype=torch.float64)
    return [curve(module, x, (1, POINTS), label) for label, module in modules.items()]


def curve(module: Quantizer, x: Tensor, shape: tuple[int, ...], label: str = "") -> Curve:
    """Run a quantizer on x, (N,), in the given shape, and differentiate each value by itself.

    A sum of the values would not do: where a filter is centred, its gradients add up to 0.
    """
    inputs = x.reshape(shape).clone().requires_grad_()
    codes, scale = module(inputs)
    value = (codes if scale is None else codes * scale).flatten()
    parameters = {key: one for key, one in module.named_parameters() if one.requires_grad}
    slope, by = torch.zeros_like(x), {name: torch.zeros_like(x) for name in parameters}
    for number, one in enumerate(value):
        own, *others = torch.autograd.grad(one, [inputs, *parameters.values()], retain_graph=True)
        slope[number] = own.flatten()[number]
        for name, other in zip(by, others, strict=True):
            by[name][number] = other
    return Curve(label, x, value.detach(), slope, by)


def _variants(name: str, bits: int, estimators: tuple[str, ...]) -> dict[str, QuantizerSpec]:
    """Return the specs whose curves differ, by what tells them apart."""
    traits = kinds.traits(name)
    width = min(traits.bits, key=lambda known: abs(known - bits))
    if "ste" in traits.settings:
        return {kind: QuantizerSpec(name, width, ste=kind) for kind in estimators}
    if "symmetric" in traits.settings:
        return {word: QuantizerSpec(name, width, symmetric=word == "symmetric") for word in ("symmetric", "asymmetric")}
    return {"": QuantizerSpec(name, width)}


def _edges(module: Quantizer) -> tuple[float, float]:
    """Return the inputs between which the codes change."""
    grid = grid_of(module)
    if isinstance(grid, Steps):
        return grid.low / grid.inverse, grid.high / grid.inverse
    edge = (grid.edge or 0.0) if isinstance(grid, Signs) else 0.0
    return -edge - 1, edge + 1
