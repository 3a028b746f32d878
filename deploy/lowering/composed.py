"""Rules for calls that are several operations of a program: selu, celu, glu, lerp, instance norm and others."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule, numbers
from deploy.lowering.calls import factored
from deploy.lowering.combining import combined, operand
from deploy.lowering.modules import log_sigmoid
from deploy.lowering.moves import sliced
from deploy.lowering.rows import elementwise
from deploy.operations.functions import Combine, Constant, Function, Standardize
from deploy.operations.layers import Affine
from deploy.operations.places import Permute
from models.graph.calls import values

aten = torch.ops.aten

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Klambauer et al., arXiv 1706.02515; the digits that torch has."""


def selu(builder: Builder, node: fx.Node) -> int:
    found = builder.add(Function, builder.source(), part=".elu", kind="elu", settings=(SELU_ALPHA,))
    return builder.add(Affine, found, multiplier=numbers(SELU_SCALE))


def celu(builder: Builder, node: fx.Node) -> int:
    """Add alpha elu(x / alpha)."""
    alpha = float(values(node)["alpha"])
    if alpha <= 0:
        raise builder.refused("an alpha that is not above 0")
    inner = builder.add(Affine, builder.source(), part=".inner", multiplier=numbers(1 / alpha))
    found = builder.add(Function, inner, part=".elu", kind="elu", settings=(1.0,))
    return builder.add(Affine, found, multiplier=numbers(alpha))


def softshrink(builder: Builder, node: fx.Node) -> int:
    """Add x - clamp(x, -lambda, lambda)."""
    end = float(values(node)["lambd"])
    inside = builder.add(Function, builder.source(), part=".inside", kind="clamp", settings=(-end, end))
    return builder.add(Combine, builder.source(), inside, kind="sub")


def inverted(of: str | None = None) -> Rule:
    """Return the rule for 1 / x, or for 1 over a function of x."""

    def rule(builder: Builder, node: fx.Node) -> int:
        source = builder.source()
        one = builder.add(Constant, part=".one", numbers=numbers(1.0).reshape((1,) * len(builder.shape(source))))
        source = source if of is None else builder.add(Function, source, part=f".{of}", kind=of)
        return builder.add(Combine, one, source, kind="div")

    return rule


def glu(builder: Builder, node: fx.Node) -> int:
    axis = builder.axis(values(node)["dim"])
    half = builder.shape(builder.source())[axis] // 2
    one, other = sliced(builder, [half, half], axis)
    gate = builder.add(Function, other, part=".gate", kind="sigmoid")
    return builder.add(Combine, one, gate, kind="mul")


def lerp(builder: Builder, node: fx.Node) -> int:
    """Add start + weight * (end - start)."""
    told = values(node)
    rank = len(builder.given())
    start, end, weight = (operand(builder, told[name], rank) for name in ("self", "end", "weight"))
    apart = combined(builder, "sub", [end, start], ".apart")
    return combined(builder, "add", [start, combined(builder, "mul", [apart, weight], ".part")])


def pixel_unshuffle(builder: Builder, node: fx.Node) -> int:
    """Move rows and columns to channels: (C, H r, W r) -> (C r r, H, W)."""
    factor = values(node)["downscale_factor"]
    channels, rows, columns = builder.shape(builder.source())
    apart = (channels, rows // factor, factor, columns // factor, factor)
    moved = builder.add(
        Permute, builder.reshaped(builder.source(), apart, ".apart"), part=".move", axes=(0, 2, 4, 1, 3)
    )
    return builder.reshaped(moved, builder.given())


def with_third(kind: str) -> Rule:
    """Return the rule for self + value * (one combined with other): addcmul and addcdiv."""

    def rule(builder: Builder, node: fx.Node) -> int:
        told, rank = values(node), len(builder.given())
        first, one, other = (operand(builder, told[name], rank) for name in ("self", "tensor1", "tensor2"))
        factor = numbers(float(told["value"])).reshape((1,) * rank)
        both = combined(builder, "mul", [combined(builder, kind, [one, other], ".both"), factor], ".scaled")
        return combined(builder, "add", [first, both])

    return rule


def rrelu(builder: Builder, node: fx.Node) -> int:
    """Add the leaky ReLU that RReLU is in evaluation."""
    told = values(node)
    slope = (float(told["lower"]) + float(told["upper"])) / 2
    return elementwise(builder, builder.source(), Function, kind="leaky_relu", settings=(slope,))


def instance_norm(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    if not told["use_input_stats"]:
        raise builder.refused("statistics of training")
    axes = tuple(range(1, len(builder.shape(builder.source()))))
    found = builder.add(Standardize, builder.source(), axes=axes, eps=float(told["eps"]))
    return factored(builder, told, found)


COMPOSED: dict[Any, Rule] = {
    aten.selu: selu, aten.rsqrt: inverted("sqrt"),
    aten.reciprocal: inverted(), aten.glu: glu, aten.lerp: lerp, aten.pixel_unshuffle: pixel_unshuffle,
    aten.instance_norm: instance_norm, aten.celu: celu, aten.softshrink: softshrink, aten.rrelu: rrelu,
    aten.addcmul: with_third("mul"), aten.addcdiv: with_third("div"),
    aten.log_sigmoid: lambda builder, node: log_sigmoid(builder, builder.source()),
}  # fmt: skip
