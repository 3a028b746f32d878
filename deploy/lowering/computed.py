"""Rules for layers and batch norms that are calls: with tensors that the network holds or computes from those it holds.

Examples: standardised weights, a cosine classifier, the projections of nn.MultiheadAttention for several inputs. They stay
in float, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from deploy.lowering import layers, matrices
from deploy.lowering.builder import Builder, Rule, numbers
from deploy.operations.layers import Affine, Convolution, Transposed
from models.graph.calls import values
from models.layers.fold import normalizing

aten = torch.ops.aten


def linear(builder: Builder, node: fx.Node) -> int:
    told = values(node)
    weight, bias = _tensors(builder, told)
    if weight.ndim != 2:
        raise builder.refused("a weight that is no matrix")
    return layers.linear(builder, builder.source(), matrices.scaled(numbers(weight), None, bias))


def convolution(builder: Builder, node: fx.Node) -> int:
    told: Any = values(node)
    weight, bias = _tensors(builder, told)
    count = weight.ndim - 2
    stride, padding, dilation = (
        told[name] if isinstance(told[name], str) else _each(told[name], count)
        for name in ("stride", "padding", "dilation")
    )
    padding, source = layers.padding(weight.shape[2:], padding, dilation), builder.source()
    if count == 1:  # a line of numbers is a picture with one row
        weight, stride, padding, dilation = weight[:, :, None], (1, *stride), (0, 0, *padding), (1, *dilation)
        channels, length = builder.shape(source)
        source = builder.reshaped(source, (channels, 1, length), ".row")
    found = builder.add(
        Convolution, source, matrix=matrices.scaled(numbers(weight), None, bias), stride=stride, padding=padding,
        dilation=dilation, groups=told["groups"],
    )  # fmt: skip
    return builder.reshaped(found, builder.given(), ".shape")


def transposed(builder: Builder, node: fx.Node) -> int:
    told: Any = values(node)
    weight = _weight(builder, told)
    bias = torch.zeros(weight.shape[1] * told["groups"]) if told["bias"] is None else builder.tensor(told["bias"])
    stride, padding, more, dilation = (
        _each(told[name], 2) for name in ("stride", "padding", "output_padding", "dilation")
    )
    return builder.add(
        Transposed, builder.source(), weight=numbers(weight), shift=numbers(bias), stride=stride, padding=padding,
        more=more, dilation=dilation, groups=told["groups"],
    )  # fmt: skip


def batch_norm(builder: Builder, node: fx.Node) -> int:
    """Add a batch norm that is a call; its statistics are those that the network holds."""
    told = values(node)
    if told["training"] or told["running_mean"] is None:
        raise builder.refused("statistics of the batch")
    names = ("weight", "bias", "running_mean", "running_var")
    parts = {name: None if told[name] is None else builder.tensor(told[name]).double() for name in names}
    norm: Any = SimpleNamespace(eps=told["eps"], **parts)
    multiplier, shift = normalizing(norm, norm.running_mean, norm.running_var)
    return builder.add(Affine, builder.source(), multiplier=numbers(multiplier), shift=numbers(shift))


def _tensors(builder: Builder, told: dict[str, Any]) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the weight and the bias of a call."""
    weight = _weight(builder, told)
    bias = np.zeros(len(weight)) if told["bias"] is None else builder.tensor(told["bias"]).cpu().double().numpy()
    return weight, bias


def _weight(builder: Builder, told: dict[str, Any]) -> Tensor:
    if told["weight"] not in builder.held:
        raise builder.refused("a weight that depends on the picture")
    return builder.tensor(told["weight"])


def _each(setting: Sequence[int], count: int) -> tuple[int, ...]:
    """Return a setting for each of `count` axes; torch takes one number for all."""
    return tuple(setting) * (count // len(setting))


COMPUTED: dict[Any, Rule] = {
    aten.linear: linear, aten.conv1d: convolution, aten.conv2d: convolution, aten.conv_transpose2d: transposed, aten.batch_norm: batch_norm,
}  # fmt: skip
