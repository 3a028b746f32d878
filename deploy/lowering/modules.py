"""Rules for modules without a matrix: batch norms, activations, pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from deploy.lowering.builder import Builder, numbers
from deploy.lowering.rows import elementwise
from deploy.operations.functions import Function, Slopes, Softmax
from deploy.operations.layers import Affine
from deploy.operations.places import Concatenate, Slice
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from models.graph.flow import PASSING
from models.layers.fold import in_eval

Made = Callable[[Builder, Any], int]
LARGEST = float(torch.finfo(torch.float32).max)
LEAST_THRESHOLD = 16
"""Of softplus: for a larger x, x + exp(-x) is x in fp32, so that a threshold above it changes nothing."""


def passed(builder: Builder, found: nn.Module) -> int:
    return builder.source()


def norm(builder: Builder, found: Any) -> int:
    """Add a batch norm that is not merged into a layer."""
    if found.running_mean is None:
        raise builder.refused("it keeps no running statistics")
    multiplier, shift = in_eval(found)
    return builder.add(Affine, builder.source(), multiplier=numbers(multiplier), shift=numbers(shift))


def function(kind: str, *settings: str) -> Made:
    """Return the rule for an elementwise function; `settings` names the module's fields that it reads."""

    def make(builder: Builder, found: nn.Module) -> int:
        told = tuple(float(getattr(found, name)) for name in settings)
        return elementwise(builder, builder.source(), Function, kind=kind, settings=told)

    return make


def gelu(builder: Builder, found: Any) -> int:
    kind = "gelu" if found.approximate == "none" else "gelu_tanh"
    return elementwise(builder, builder.source(), Function, kind=kind)


def slopes(builder: Builder, found: Any) -> int:
    return builder.add(Slopes, builder.source(), slope=numbers(found.weight))


def log_sigmoid(builder: Builder, source: int) -> int:
    """Add the logarithm of sigmoid: log_softmax of x and 0, of which it takes the first."""
    shape = builder.shape(source)
    source = builder.add(Function, source, part=".finite", kind="clamp", settings=(-LARGEST, LARGEST))
    zero = builder.add(Function, source, part=".zero", kind="clamp", settings=(0.0, 0.0))
    one, other = (builder.reshaped(each, (1, *shape), f".{n}") for n, each in enumerate((source, zero)))
    joined = builder.add(Concatenate, one, other, part=".joined", axis=0)
    soft = builder.add(Softmax, joined, part=".log_softmax", axis=0, log=True)
    return builder.reshaped(builder.add(Slice, soft, part=".first", axis=0, start=0, stop=1), shape)


def softplus(builder: Builder, found: Any) -> int:
    """Add log(1 + exp(beta x)) / beta, which is -log_sigmoid(-beta x) / beta."""
    if found.threshold < LEAST_THRESHOLD:
        raise builder.refused(f"a threshold below {LEAST_THRESHOLD}")
    if not found.beta:
        raise builder.refused("a beta of 0")
    turned = builder.add(Affine, builder.source(), part=".turned", multiplier=numbers(-float(found.beta)))
    return builder.add(Affine, log_sigmoid(builder, turned), part=".back", multiplier=numbers(-1 / float(found.beta)))


def pair(value: Any) -> tuple[int, int]:
    """Return two numbers, of which one may be given for both directions."""
    rows, columns = value if isinstance(value, (tuple, list)) else (value, value)
    return int(rows), int(columns)


def sides(padding: Any) -> tuple[int, int, int, int]:
    rows, columns = pair(padding)
    return rows, rows, columns, columns


def max_pool(builder: Builder, found: Any) -> int:
    return builder.add(
        MaxPool, builder.source(), kernel=pair(found.kernel_size), stride=pair(found.stride),
        padding=sides(found.padding), dilation=pair(found.dilation), ceil=bool(found.ceil_mode),
    )  # fmt: skip


def average_pool(builder: Builder, found: Any) -> int:
    return builder.add(
        AveragePool, builder.source(), kernel=pair(found.kernel_size), stride=pair(found.stride),
        padding=sides(found.padding), ceil=bool(found.ceil_mode), counts_padding=bool(found.count_include_pad),
        divisor=found.divisor_override,
    )  # fmt: skip


def adaptive_pool(builder: Builder, found: nn.Module) -> int:
    return builder.add(AdaptivePool, builder.source(), kind="mean", size=builder.given()[1:])


ELEMENTWISE: dict[type[nn.Module], Made] = {
    **dict.fromkeys((*PASSING, nn.Dropout1d), passed),
    nn.ReLU: function("relu"),
    nn.ReLU6: function("clamp", "min_val", "max_val"),
    nn.Hardtanh: function("clamp", "min_val", "max_val"),
    nn.LeakyReLU: function("leaky_relu", "negative_slope"),
    nn.ELU: function("elu", "alpha"),
    nn.GELU: gelu,
    nn.SiLU: function("silu"),
    nn.Mish: function("mish"),
    nn.Softplus: softplus,
    nn.Sigmoid: function("sigmoid"),
    nn.Tanh: function("tanh"),
    nn.Hardswish: function("hardswish"),
    nn.Hardsigmoid: function("hardsigmoid"),
}
"""The rules of modules that compute each number by itself, whatever its axes are."""

MODULES: dict[type[nn.Module], Made] = {
    **ELEMENTWISE,
    _BatchNorm: norm,
    nn.PReLU: slopes,
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool2d: adaptive_pool,
}


def lowered(builder: Builder, node: fx.Node, found: nn.Module) -> int:
    """Add a module without a matrix and return the number of its value.

    Raises:
        UserError: exit 2 if no operation computes the module.
    """
    for kind in type(found).__mro__:
        if kind in MODULES:
            return MODULES[kind](builder, found)
    raise builder.refused()
