"""Make the modules of a quantizer, and check once what they return: a quantizer from outside may return anything."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from models.layers.quantizers import kinds
from models.layers.quantizers.base import Quantized, Quantizer
from models.layers.quantizers.guard import called, file_of, guarded, misdeclared
from models.layers.quantizers.kinds import Spec


def weight_quantizer(kind: str, spec: Spec, weight: Tensor) -> Quantizer:
    """Return the module for a weight.

    Raises:
        UserError: exit 2 if the quantizer cannot make it, or its codes or scale have a wrong type or shape.
    """
    make = kinds.lookup(kind).weight
    return _checked(called(make, spec, weight), make, weight, (len(weight), *(1,) * (weight.ndim - 1)))


def input_quantizer(kind: str, spec: Spec, signed: bool) -> Quantizer:
    """Return the module for a layer's input.

    Raises:
        UserError: exit 2 if the quantizer cannot make it, or its codes or scale have a wrong type or shape.
    """
    make = kinds.lookup(kind).activation
    return _checked(called(make, spec, signed), make, torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2), ())


def _checked(quantizer: Quantizer, make: Any, x: Tensor, scales: tuple[int, ...]) -> Quantizer:
    """Return the quantizer if a copy of it quantizes `x` into codes and a scale of one number or of shape `scales`.

    The copy is in eval mode: in training mode a quantizer may measure its input over all ranks. Exceptions of training
    mode alone are not found here.
    """
    if not isinstance(quantizer, Quantizer):
        raise misdeclared(file_of(make), f"it makes an object of type {type(quantizer).__name__}, not a Quantizer")
    if x.is_meta:
        return quantizer
    file, name = file_of(type(quantizer)), type(quantizer).__name__
    with guarded(file), torch.no_grad():
        found = copy.deepcopy(quantizer).to(x.device, x.dtype).eval()(x)
    if not isinstance(found, Quantized):
        raise misdeclared(file, f"{name}.forward returns a {type(found).__name__}, not Quantized(codes, scale)")
    if not isinstance(found.codes, Tensor) or found.codes.shape != x.shape:
        shape = tuple(found.codes.shape) if isinstance(found.codes, Tensor) else type(found.codes).__name__
        raise misdeclared(file, f"{name}.forward returns codes of shape {shape} for {tuple(x.shape)}")
    for part in (found.codes, found.scale):
        if isinstance(part, Tensor) and part.dtype != x.dtype:
            raise misdeclared(file, f"{name}.forward returns {part.dtype} for {x.dtype}: codes and scale keep the type")
    if found.scale is not None and not isinstance(found.scale, Tensor):
        raise misdeclared(file, f"{name}.forward returns a {type(found.scale).__name__} as scale, not a Tensor or None")
    if found.scale is not None and found.scale.numel() != 1 and found.scale.shape != scales:
        wanted = f"() or {scales}" if scales else "()"
        raise misdeclared(file, f"{name}.forward returns a scale of shape {tuple(found.scale.shape)}, not {wanted}")
    return quantizer
