"""The formulas of kernels.py as loops: source/fused.cpp on a CPU, on_gpu.py on a GPU; and on a CPU those of selecting.py
and settled.py.

Arguments and results are as there, but sums and ends come in parts, (parts, channels).
"""

from __future__ import annotations

import ctypes
import math
from ctypes import c_float, c_int
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import first_line
from engine.system.compiled import Unavailable
from models.fused import channels, library
from models.fused.dispatch import by_kernels
from models.fused.windows import Windows
from models.layers.quantizers.base import Kind

KINDS: tuple[Kind, ...] = ("number", "round", "sign", "ternary", "share")
LANES = 16
"""Channels in the widest vector of source/lanes.h."""


def _kernels() -> ModuleType:
    from models.fused import on_gpu

    return on_gpu


def pooled(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Compute a max-pool on a GPU. Shapes: (B, C, H, W) -> (B, C, H', W'), channels_last."""
    from models.fused import pool as own

    return own.pooled(pool, x)


class _Windows(ctypes.Structure):
    """`Windows` of source/table.h."""

    _fields_ = [(name, c_int) for name in (
        "size_down", "size_across", "step_down", "step_across", "above", "left", "height", "width", "down", "across",
    )]  # fmt: skip


def _windows(of: Windows) -> Any:
    return ctypes.byref(_Windows(*of.size, *of.step, *of.around, *of.before, *of.after))


class _Rule(ctypes.Structure):
    """`Rule` of source/table.h."""

    _fields_ = [("kind", c_int), ("slope", c_int), *((name, c_float) for name in
                ("bottom", "top", "step", "low", "high", "least", "most", "first", "last"))]  # fmt: skip


def _rule(grid: Tensor, kind: Kind, slope: str = "ste") -> Any:
    soft = {"sign": 1, "ternary": 2}.get(kind, 0) if slope == "soft" else 0
    return ctypes.byref(_Rule(KINDS.index(kind), soft, *grid.tolist()))


def _given(*values: Tensor) -> list[Any]:
    """Return the tensors' addresses; behind a matrix's address, 1 if it is bf16, else 0."""
    found: list[Any] = []
    for value in values:
        if value.dtype not in (torch.float32, torch.bfloat16) or not value.is_contiguous():
            raise TypeError(f"loops take contiguous fp32 and bf16, not {value.dtype}")
        found.append(value.data_ptr())
        if value.ndim == 2:
            found.append(int(value.dtype == torch.bfloat16))
    return found


def _side_by_side(z: Tensor, *of_channels: Tensor) -> tuple[Tensor, ...]:
    """Return a matrix with rows side by side, which fill vectors together, and numbers of its channels as often.

    A loop takes many times as long for channels beyond the last full vector.

    Raises:
        TypeError: for a matrix that is not contiguous.
    """
    _given(z)
    beside = min(LANES // math.gcd(z.shape[1], LANES), math.gcd(len(z), LANES))
    if beside == 1:
        return z, *of_channels
    return z.view(len(z) // beside, beside * z.shape[1]), *(value.repeat(beside) for value in of_channels)


def _run(loop: Any, *given: Any) -> None:
    if loop(*given):
        raise MemoryError


@by_kernels(_kernels)
def moments(z: Tensor, k: Tensor, ends: bool) -> tuple[Tensor, ...]:
    wide, k = _side_by_side(z, k)
    found, reach = k.new_empty(2, len(k)), k.new_empty(2, len(k)) if ends else None
    told = (*_given(wide), *wide.shape, *_given(k))
    _run(library.loaded().mc_moments, *told, found.data_ptr(), None if reach is None else reach.data_ptr())
    return tuple(value.reshape(-1, z.shape[1]) for value in (*found, *(() if reach is None else reach)))


@by_kernels(_kernels)
def coded(z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, dtype: torch.dtype) -> Tensor:
    out = torch.empty_like(z, dtype=dtype)
    wide, k, a, c = _side_by_side(z, k, a, c)
    _run(library.loaded().mc_coded, *_given(wide), *wide.shape, *_given(k, a, c), _rule(grid, kind), *_given(out))
    return out


def settled(
    z: Tensor, scale: Tensor | None, bias: Tensor | None, a: Tensor | None, c: Tensor | None, grid: Tensor, kind: Kind,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Return as `coded` what follows a layer in evaluation, on a CPU: codes of (z scale + bias) a + c.

    Args:
        z: fp32.
        scale, bias: of the layer, (channels,); None: there is none.
        a, c: of the batch norm, both or neither.
        dtype: fp32, or uint8 or int8 for codes that fit.
    """
    out = torch.empty_like(z, dtype=dtype)
    wide, *each = _side_by_side(z, *(value for value in (scale, bias, a, c) if value is not None))
    at, half = _given(wide)
    if half:
        raise TypeError("evaluation has sums in fp32")
    held = iter(_given(*each))
    factors = [None if value is None else next(held) for value in (scale, bias, a, c)]
    bytes_out = {torch.float32: 0, torch.uint8: 1, torch.int8: 1}[dtype]
    _run(library.loaded().mc_settled, at, *wide.shape, *factors, _rule(grid, kind), out.data_ptr(), bytes_out)
    return out


@by_kernels(_kernels)
def sums(
    g: Tensor, z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, slope: str
) -> tuple[Tensor, ...]:
    wide, k, a, c = _side_by_side(z, k, a, c)
    found = k.new_empty(3, len(k))
    told = (*_given(g, wide), *wide.shape, *_given(k, a, c), _rule(grid, kind, slope))
    _run(library.loaded().mc_sums, *told, found.data_ptr())
    return tuple(value.reshape(-1, z.shape[1]) for value in found)


@by_kernels(_kernels)
def back(
    g: Tensor, z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, e0: Tensor, e1: Tensor, kind: Kind, slope: str
) -> Tensor:
    out, rule = torch.empty_like(z), _rule(grid, kind, slope)
    wide, k, a, c, e0, e1 = _side_by_side(z, k, a, c, e0, e1)
    told = (*_given(g, wide), *wide.shape, *_given(k, a, c), rule, *_given(e0, e1))
    _run(library.loaded().mc_back, *told, out.data_ptr())
    return out


@by_kernels(_kernels)
def spread(z: Tensor, k: Tensor, e0: Tensor, e1: Tensor) -> Tensor:
    out = torch.empty_like(z)
    wide, k, e0, e1 = _side_by_side(z, k, e0, e1)
    told = (*_given(wide), *wide.shape, *_given(k, k, k), ctypes.byref(_Rule()), *_given(e0, e1))
    _run(library.loaded().mc_back, None, 0, *told, out.data_ptr())
    return out


def selected(z: Tensor, a: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    pictures = len(z) // math.prod(windows.before)
    shape = (pictures * math.prod(windows.after), z.shape[1])
    found, which = z.new_empty(shape, dtype=torch.float32), z.new_empty(shape, dtype=torch.uint8)
    told = (*_given(z), pictures, z.shape[1], *_given(a), _windows(windows))
    _run(library.loaded().mc_selected, *told, found.data_ptr(), which.data_ptr())
    return found, which


def returned(d: Tensor, which: Tensor, z: Tensor, k: Tensor, e0: Tensor, e1: Tensor, windows: Windows) -> Tensor:
    out, pictures = torch.empty_like(z), len(z) // math.prod(windows.before)
    if d.dtype != torch.float32 or which.dtype != torch.uint8 or not which.is_contiguous() or d.shape != which.shape:
        raise TypeError("`selected` returns fp32 and bytes")
    told = (*_given(z), pictures, z.shape[1], *_given(k, e0, e1), _windows(windows))
    _run(library.loaded().mc_returned, _given(d)[0], which.data_ptr(), *told, out.data_ptr())
    return out


def trial(device: torch.device) -> None:
    """Compile what a training needs and run it once, before the training relies on it.

    Raises:
        Unavailable: if the library cannot be loaded on a CPU, or Triton fails on a GPU.
    """
    if device.type == "cpu":
        library.loaded()
        return
    try:
        z = torch.zeros(64, 32, device=device)
        first, second = moments(z, z[0], False)
        mean, _, (a, c) = channels.normed(first, second, z[0], len(z), None, None, nn.BatchNorm2d(32, device=device))
        coded(z, mean, a, c, torch.ones(9, device=device), "round", torch.bfloat16)
    except Exception as fault:  # Triton's faults have many types
        raise Unavailable(f"Triton fails: {first_line(fault)}") from fault
