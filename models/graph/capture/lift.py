"""Standard modules for ATen calls: convolutions, linear layers, batch norms, activations, pools, dropout.

Operations without an entry here stay ATen calls. No call is ever guessed to be a module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.graph.calls import Values

aten = torch.ops.aten


Kinds = tuple[Callable[..., nn.Module], Callable[..., nn.Module], Callable[..., nn.Module]]


def _conv(v: Values, weight: Tensor) -> nn.Module:
    return _layer((nn.Conv1d, nn.Conv2d, nn.Conv3d), weight.shape[1] * v["groups"], weight.shape[0], v, weight)


def _transposed(v: Values, weight: Tensor) -> nn.Module:
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return _layer(kinds, weight.shape[0], weight.shape[1] * v["groups"], v, weight)


def _layer(kinds: Kinds, inputs: int, outputs: int, v: Values, weight: Tensor) -> nn.Module:
    count = weight.ndim - 2
    grid = {name: _each(v[name], count) for name in ("stride", "padding", "dilation", "output_padding") if name in v}
    make = kinds[count - 1]
    return make(inputs, outputs, tuple(weight.shape[2:]), **grid, groups=v["groups"], bias=v["bias"] is not None,
                device="meta")  # fmt: skip


def _each(value: Any, count: int) -> Any:
    """Return one number for each direction. A schema may give a single number for all."""
    if isinstance(value, str):
        return value
    return tuple(value) * (count // len(value)) if isinstance(value, (list, tuple)) else (value,) * count


def _linear(v: Values, weight: Tensor) -> nn.Module | None:
    if weight.ndim != 2:  # F.linear also takes a vector
        return None
    return nn.Linear(weight.shape[1], weight.shape[0], bias=v["bias"] is not None, device="meta")


def _prelu(v: Values, weight: Tensor) -> nn.Module:
    return nn.PReLU(weight.numel(), device="meta")


WITH_WEIGHT: dict[Any, Callable[[Values, Tensor], nn.Module | None]] = {
    aten.conv1d: _conv, aten.conv2d: _conv, aten.conv3d: _conv,
    aten.conv_transpose1d: _transposed, aten.conv_transpose2d: _transposed, aten.conv_transpose3d: _transposed,
    aten.linear: _linear, aten.prelu: _prelu,
}  # fmt: skip
"""By operation, a function of its arguments and weight that returns the module, or None if no module computes the same.

The caller puts weight and bias in.
"""

NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
"""Batch norms by the dimensions of their input."""


def norm(v: Values, dimensions: int, features: int, momentum: float | None) -> nn.Module:
    """Return a batch norm without contents; the caller puts its tensors in. Momentum None means a cumulative mean."""
    return NORMS[dimensions](
        features, v["eps"], momentum, v["weight"] is not None, v["running_mean"] is not None, device="meta"
    )


def _pool(kind: type[nn.Module], *names: str) -> Callable[[Values], nn.Module]:
    def make(v: Values) -> nn.Module:
        chosen = {name: tuple(v[name]) if isinstance(v[name], list) else v[name] for name in names}
        return kind(**{**chosen, "stride": chosen["stride"] or None})

    return make


def _hardtanh(v: Values) -> nn.Module:
    return nn.ReLU6() if (v["min_val"], v["max_val"]) == (0, 6) else nn.Hardtanh(v["min_val"], v["max_val"])


def _elu(v: Values) -> nn.Module | None:
    return nn.ELU(v["alpha"]) if (v["scale"], v["input_scale"]) == (1, 1) else None


WITHOUT_WEIGHT: dict[Any, Callable[[Values], nn.Module | None]] = {
    aten.relu: lambda v: nn.ReLU(),
    aten.relu6: lambda v: nn.ReLU6(),
    aten.hardtanh: _hardtanh,
    aten.leaky_relu: lambda v: nn.LeakyReLU(v["negative_slope"]),
    aten.elu: _elu,
    aten.gelu: lambda v: nn.GELU(v["approximate"]),
    aten.silu: lambda v: nn.SiLU(),
    aten.mish: lambda v: nn.Mish(),
    aten.sigmoid: lambda v: nn.Sigmoid(),
    aten.tanh: lambda v: nn.Tanh(),
    aten.hardswish: lambda v: nn.Hardswish(),
    aten.hardsigmoid: lambda v: nn.Hardsigmoid(),
    aten.softplus: lambda v: nn.Softplus(v["beta"], v["threshold"]),
    aten.max_pool2d: _pool(nn.MaxPool2d, "kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    aten.avg_pool2d: _pool(
        nn.AvgPool2d, "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
    ),
    **dict.fromkeys(
        (aten.adaptive_avg_pool2d, aten._adaptive_avg_pool2d), lambda v: nn.AdaptiveAvgPool2d(tuple(v["output_size"]))
    ),
    aten.dropout: lambda v: None if v["train"] else nn.Dropout(v["p"]),
    aten.feature_dropout: lambda v: None if v["train"] else nn.Dropout2d(v["p"]),
    aten.alpha_dropout: lambda v: None if v["train"] else nn.AlphaDropout(v["p"]),
}
"""By operation, a function of its arguments that returns the module, or None if no module computes the same."""
