"""The formulas of kernels.py as Triton kernels, one pass over memory each.

A program takes some channels of a range of rows and walks down these rows, so that it loads each channel's values once.
Sums are taken in two stages, without atomics: equal inputs give equal bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.fused.kernels import PRESCALE, THRESHOLD
from models.layers.quantizers.base import Kind

WIDE = 64
"""Channels that a program takes at a time. The number is fixed, as each number is another kernel to compile."""
LANES = (64, 1056)
"""Rows that a program takes at a time, and the most parts that rows are cut into."""
SUMS = (64, 132)
"""The same for sums: they stay in registers, and a part is a row of the result. An H200 has 132 multiprocessors."""
EXACT = 12582912.0
"""1.5 * 2^23: adding it to an fp32 number below 2^22 and subtracting it again rounds to an integer, half to even."""
_KINDS: dict[Kind, int] = {"number": 0, "round": 1, "sign": 2, "ternary": 3, "share": 4}
_EDGE, _EXACT, _PRESCALE = tl.constexpr(THRESHOLD), tl.constexpr(EXACT), tl.constexpr(PRESCALE)


def moments(z: Tensor, k: Tensor, ends: bool) -> tuple[Tensor, ...]:
    parts, tile = _cut(z, SUMS)
    found = torch.empty(4 if ends else 2, parts, len(k), device=k.device)
    _moments[_programs(z, parts, tile)](z, k, found, *z.shape, ENDS=ends, **tile)
    return found.unbind()


def coded(z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, dtype: torch.dtype) -> Tensor:
    parts, tile = _cut(z, LANES)
    out = torch.empty_like(z, dtype=dtype)
    _coded[_programs(z, parts, tile)](z, k, a, c, grid, out, *z.shape, KIND=_KINDS[kind], **tile)
    return out


def sums(
    g: Tensor, z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, kind: Kind, slope: str
) -> tuple[Tensor, ...]:
    parts, tile = _cut(z, SUMS)
    found = k.new_empty(3, parts, len(k))
    of = {"KIND": _KINDS[kind], "SOFT": slope == "soft"}
    _sums[_programs(z, parts, tile)](g, z, k, a, c, grid, found, *z.shape, **of, **tile)
    return found.unbind()


def back(
    g: Tensor, z: Tensor, k: Tensor, a: Tensor, c: Tensor, grid: Tensor, e0: Tensor, e1: Tensor, kind: Kind, slope: str
) -> Tensor:
    parts, tile = _cut(z, LANES)
    out, of = torch.empty_like(z), {"KIND": _KINDS[kind], "SOFT": slope == "soft"}
    _back[_programs(z, parts, tile)](g, z, k, a, c, grid, e0, e1, out, *z.shape, **of, **tile)
    return out


def spread(z: Tensor, k: Tensor, e0: Tensor, e1: Tensor) -> Tensor:
    parts, tile = _cut(z, LANES)
    out = torch.empty_like(z)
    _spread[_programs(z, parts, tile)](z, k, e0, e1, out, *z.shape, **tile)
    return out


def _cut(z: Tensor, size: tuple[int, int]) -> tuple[int, dict[str, int]]:
    """Return the number of parts that rows are cut into, and the rows and channels of a tile."""
    high, most = size
    return max(1, min(most, len(z) // high)), {"ROWS": high, "WIDE": WIDE}


def _programs(z: Tensor, parts: int, tile: dict[str, int]) -> tuple[int, int]:
    return parts, triton.cdiv(z.shape[1], tile["WIDE"])


@triton.jit
def _place(rows, channels, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """Return a program's channels, whether they exist, its first row, and the row behind its last."""
    channel = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    each = tl.cdiv(tl.cdiv(rows, tl.num_programs(0)), ROWS) * ROWS
    first = tl.program_id(0) * each
    return channel, channel < channels, first, tl.minimum(first + each, rows)


@triton.jit
def _at(start, last, channel, inside, channels, ROWS: tl.constexpr):
    """Return the offsets of a tile's numbers, and which of them exist."""
    row = start + tl.arange(0, ROWS)
    return row[:, None].to(tl.int64) * channels + channel[None, :], (row < last)[:, None] & inside[None, :]


@triton.jit
def _row(of, channel, inside):
    """Return a vector's values for the channels of a tile, (1, channels), fp32."""
    return tl.load(of + channel, inside, 0.0).to(tl.float32)[None, :]


@triton.jit
def _clamped(x, low, high):
    """Clamp x; NaN stays NaN."""
    return tl.minimum(tl.maximum(x, low, tl.PropagateNan.ALL), high, tl.PropagateNan.ALL)


@triton.jit
def _pulled(g, v, least, most, KIND: tl.constexpr, SOFT: tl.constexpr):
    d = g
    if SOFT and KIND == 2:
        d = d * tl.maximum(1 - tl.abs(v), 0.0)
    if SOFT and KIND == 3:
        d = d * tl.maximum(1 - 2 * tl.abs(tl.abs(v) - _EDGE), 0.0)
    return tl.where((v >= least) & (v <= most), d, 0.0)


@triton.jit
def _divided(x, step, inverse):
    """Return x / step, rounded once if it is below 2^20. A true division takes three times as long."""
    near = x * inverse
    exact = tl.fma(tl.fma(-near, step, x), inverse, near)
    return tl.where(tl.abs(near) < 1048576.0, exact, near)


@triton.jit
def _moments(z, k, found, rows, channels, ENDS: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr):
    channel, inside, first, last = _place(rows, channels, ROWS, WIDE)
    middle = _row(k, channel, inside)
    one = tl.zeros((ROWS, WIDE), tl.float32)
    two = tl.zeros((ROWS, WIDE), tl.float32)
    least = tl.full((ROWS, WIDE), float("inf"), tl.float32)
    most = tl.full((ROWS, WIDE), float("-inf"), tl.float32)
    for start in range(first, last, ROWS):
        place, there = _at(start, last, channel, inside, channels, ROWS)
        raw = tl.load(z + place, there, 0.0).to(tl.float32)
        apart = tl.where(there, raw - middle, 0.0)
        one += apart
        two += apart * apart
        if ENDS:
            least = tl.minimum(least, tl.where(there, raw, float("inf")))
            most = tl.maximum(most, tl.where(there, raw, float("-inf")))
    into, stride = found + tl.program_id(0) * channels + channel, tl.num_programs(0) * channels
    tl.store(into, tl.sum(one, 0), inside)
    tl.store(into + stride, tl.sum(two, 0), inside)
    if ENDS:
        tl.store(into + 2 * stride, tl.min(least, 0), inside)
        tl.store(into + 3 * stride, tl.max(most, 0), inside)


@triton.jit
def _coded(
    z, k, a, c, grid, out, rows, channels, KIND: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    channel, inside, first, last = _place(rows, channels, ROWS, WIDE)
    middle = _row(k, channel, inside)
    factor = _row(a, channel, inside)
    shift = _row(c, channel, inside)
    bottom, top = tl.load(grid), tl.load(grid + 1)
    step, low, high = tl.load(grid + 2), tl.load(grid + 3), tl.load(grid + 4)
    inverse = tl.div_rn(1.0, step)
    for start in range(first, last, ROWS):
        place, there = _at(start, last, channel, inside, channels, ROWS)
        x = _clamped((tl.load(z + place, there, 0.0).to(tl.float32) - middle) * factor + shift, bottom, top)
        if KIND == 1 or KIND == 4:
            x = _divided(x, step, inverse) if KIND == 1 else x * _PRESCALE * high
            x = _clamped(x, low, high)  # last, so that no product and sum become one fused operation
            x = (x + _EXACT) - _EXACT
        if KIND == 2:
            x = tl.where(x >= 0, 1.0, -1.0)
        if KIND == 3:
            x = tl.where(x > _EDGE, 1.0, tl.where(x < -_EDGE, -1.0, 0.0))
        tl.store(out + place, x.to(out.dtype.element_ty), there)


@triton.jit
def _sums(
    g, z, k, a, c, grid, found, rows, channels,
    KIND: tl.constexpr, SOFT: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    channel, inside, first, last = _place(rows, channels, ROWS, WIDE)
    middle = _row(k, channel, inside)
    factor = _row(a, channel, inside)
    shift = _row(c, channel, inside)
    step = tl.load(grid + 2)
    bottom, top = tl.div_rn(tl.load(grid), step), tl.div_rn(tl.load(grid + 1), step)
    least, most, begin, end = tl.load(grid + 5), tl.load(grid + 6), tl.load(grid + 7), tl.load(grid + 8)
    of_a = tl.zeros((ROWS, WIDE), tl.float32)
    of_c = tl.zeros((ROWS, WIDE), tl.float32)
    of_step = tl.zeros((ROWS, WIDE), tl.float32)
    for start in range(first, last, ROWS):
        place, there = _at(start, last, channel, inside, channels, ROWS)
        apart = tl.load(z + place, there, 0.0).to(tl.float32) - middle
        pull = tl.load(g + place, there, 0.0).to(tl.float32)  # 0 outside of the tile: nothing is added
        v = apart * factor + shift
        d = _pulled(pull, v, least, most, KIND, SOFT)
        of_a += d * apart
        of_c += d
        if KIND == 1:  # other kinds have no step
            x = _clamped(v, bottom, top)
            of_step += tl.where((x >= begin) & (x <= end), pull * x, 0.0)
    into, stride = found + tl.program_id(0) * channels + channel, tl.num_programs(0) * channels
    tl.store(into, tl.sum(of_a, 0), inside)
    tl.store(into + stride, tl.sum(of_c, 0), inside)
    tl.store(into + 2 * stride, tl.sum(of_step, 0), inside)


@triton.jit
def _back(
    g, z, k, a, c, grid, e0, e1, out, rows, channels,
    KIND: tl.constexpr, SOFT: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    channel, inside, first, last = _place(rows, channels, ROWS, WIDE)
    middle = _row(k, channel, inside)
    factor = _row(a, channel, inside)
    shift = _row(c, channel, inside)
    same = _row(e0, channel, inside)
    along = _row(e1, channel, inside)
    least, most = tl.load(grid + 5), tl.load(grid + 6)
    for start in range(first, last, ROWS):
        place, there = _at(start, last, channel, inside, channels, ROWS)
        apart = tl.load(z + place, there, 0.0).to(tl.float32) - middle
        pull = tl.load(g + place, there, 0.0).to(tl.float32)
        d = _pulled(pull, apart * factor + shift, least, most, KIND, SOFT)
        tl.store(out + place, (d * factor + same + apart * along).to(out.dtype.element_ty), there)


@triton.jit
def _spread(z, k, e0, e1, out, rows, channels, ROWS: tl.constexpr, WIDE: tl.constexpr):
    channel, inside, first, last = _place(rows, channels, ROWS, WIDE)
    middle = _row(k, channel, inside)
    same = _row(e0, channel, inside)
    along = _row(e1, channel, inside)
    for start in range(first, last, ROWS):
        place, there = _at(start, last, channel, inside, channels, ROWS)
        apart = tl.load(z + place, there, 0.0).to(tl.float32) - middle
        tl.store(out + place, (same + apart * along).to(out.dtype.element_ty), there)
