"""The engine's data structures, as source/step.h declares them, and the functions of its library."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass

FLOAT, BYTE, SHORT, BITS, WHOLE = range(5)
SIZES = {FLOAT: 4, BYTE: 1, SHORT: 2, BITS: 4, WHOLE: 4}
"""Bytes of a number; for BITS, of a word of 32 channels."""

WORD = 32
"""Channels in a word of BITS."""

(
    MOVE, LAYER, DEPTHWISE, SIGNS, WIDE, QUANTIZE, DECODE, AFFINE, FUNCTION, SLOPES, COMBINE, MAXPOOL, AVERAGE, SPANS,
    REFERENCE, SOFTMAX, TOTALS, THREES, REDUCE, STANDARDIZE, PRODUCT, OVER, TRANSPOSED, BILINEAR,
) = range(24)  # fmt: skip

FUNCTIONS = (
    "abs", "ceil", "clamp", "elu", "erf", "exp", "expm1", "floor", "gelu", "gelu_tanh", "hardsigmoid", "hardswish",
    "leaky_relu", "log", "log1p", "mish", "relu", "round", "sigmoid", "sign", "silu", "sqrt", "tanh",
)  # fmt: skip
COMBINATIONS = ("add", "sub", "mul", "div", "max", "min", "pow", "eq", "ne", "gt", "ge", "lt", "le", "keep")
SPAN_KINDS = ("mean", "max", "sum", "min")
OVER_KINDS = (*SPAN_KINDS, "standardize", "softmax", "log softmax")

Callback = ctypes.CFUNCTYPE(None, c_int64, c_void_p)
"""Called with the number of a REFERENCE step and the start of the arena."""


def words(channels: int) -> int:
    """Return the words of BITS that hold one bit a channel."""
    return -(-channels // WORD)


class Value(ctypes.Structure):
    """The place of a value in the arena of a picture; see source/step.h."""

    _fields_ = (
        ("at", c_int64), ("kind", c_int32), ("rows", c_int32), ("columns", c_int32), ("channels", c_int32),
        ("pitch", c_int32), ("top", c_int32), ("left", c_int32), ("bottom", c_int32), ("right", c_int32),
        ("zero", c_int32),
    )  # fmt: skip


class Step(ctypes.Structure):
    """One step; see source/step.h."""

    _fields_ = (
        ("operation", c_int32), ("what", c_int32), ("source", Value), ("other", Value), ("result", Value),
        ("kernel", c_int32 * 2), ("stride", c_int32 * 2), ("padding", c_int32 * 2), ("dilation", c_int32 * 2),
        ("outputs", c_int32), ("groups", c_int32), ("count", c_int64), ("depth", c_int32), ("joined", c_int32), ("factor", c_int32),
        ("threes", c_int32), ("parts", c_int32), ("planes", c_int32), ("line", c_int32), ("apart", c_int32 * 6), ("coded", c_int32), ("inverse", c_float), ("low", c_float), ("high", c_float), ("edge", c_float),
        ("signs", c_int32), ("numbers", c_float * 2), ("offsets", c_void_p), ("weight", c_void_p), ("bias", c_void_p), ("each", c_void_p),
        ("scale", c_void_p), ("shift", c_void_p), ("divisors", c_void_p), ("spans", c_void_p), ("kinds", c_int64), ("base", c_void_p),
        ("limits", c_void_p), ("bounds", c_void_p), ("flips", c_void_p), ("runs", c_void_p),
    )  # fmt: skip


@dataclass(frozen=True)
class Widths:
    """The weight layout of an instruction set.

    Args:
        lanes: channels in a vector.
        vectors: in a block.
        counted: outputs whose bits are counted at once.
        depthwise_lanes: channels of a depthwise layer that are summed at once, four taps at a time; 0: there is no such kernel.
        whole: whether byte products are added in 32 bits, not in 16.
        tiles: whether layers on bytes may use tiles; see deploy.native.tiles.
    """

    lanes: int
    vectors: int
    counted: int
    depthwise_lanes: int
    whole: bool
    tiles: bool = False

    @property
    def most(self) -> int:
        """The most outputs that a kernel reads at once; it may read beyond a layer's last output."""
        return max(self.lanes * self.vectors, self.counted, self.depthwise_lanes)

    @classmethod
    def of(cls, library: ctypes.CDLL, which: int) -> Widths:
        told = (c_int32 * 6)()
        library.mc_widths(which, told)
        return cls(told[0], told[1], told[2], told[3], whole=bool(told[4]), tiles=bool(told[5]))


def declare(library: ctypes.CDLL) -> None:
    """Declare the argument and result types of the library's functions."""
    library.mc_name.argtypes, library.mc_name.restype = [c_int32], ctypes.c_char_p
    library.mc_runs_here.argtypes, library.mc_runs_here.restype = [c_int32], c_int32
    library.mc_widths.argtypes, library.mc_widths.restype = [c_int32, c_void_p], None
    library.mc_peak.argtypes, library.mc_peak.restype = [c_int32, c_int32, c_double], c_double
    library.mc_step_size.argtypes, library.mc_step_size.restype = [], c_int64
    library.mc_run.argtypes = [
        c_int32,
        c_void_p,
        c_int64,
        c_void_p,
        c_void_p,
        c_void_p,
        c_int64,
        c_int32,
        c_void_p,
        c_int64,
        c_void_p,
        Callback,
        c_void_p,
    ]
    library.mc_run.restype = None
