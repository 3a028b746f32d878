"""Rules for layers and batch norms that are calls: with tensors that the network holds or computes from those it holds.

Examples: standardised weights, a cosine classifier, the projections of nn.MultiheadAttention for several inputs. They stay
in float, as in training.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from deploy.lowering import layers, matrices
from deploy.lowering.builder import Builder, Rule, numbers
from deploy.operations.layers import Affine, Convolution
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
    for name in ("stride", "padding", "dilation"):
        if not isinstance(told[name], str):
            told[name] = tuple(told[name]) * (2 // len(told[name]))  # torch takes one number for both axes
    return builder.add(
        Convolution, builder.source(), matrix=matrices.scaled(numbers(weight), None, bias),
        stride=told["stride"], padding=layers.padding(weight.shape[2:], told["padding"], told["dilation"]),
        dilation=told["dilation"], groups=told["groups"],
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
    if told["weight"] not in builder.held:
        raise builder.refused("a weight that depends on the picture")
    weight = builder.tensor(told["weight"])
    bias = np.zeros(len(weight)) if told["bias"] is None else builder.tensor(told["bias"]).cpu().double().numpy()
    return weight, bias


COMPUTED: dict[Any, Rule] = {aten.linear: linear, aten.conv2d: convolution, aten.batch_norm: batch_norm}
