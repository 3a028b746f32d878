"""What quantized training adds to the loop: activation ranges that freeze late, latent weights that are clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from models.layers import quantizers as q
from quant.spec import QuantSpec


def freeze_late(epochs: int) -> Callable[[nn.Module, int], None]:
    """An on_epoch function: in the last quarter, activation ranges stand still and the rest settles around them."""

    def on_epoch(model: nn.Module, epoch: int) -> None:
        for module in model.modules():
            if isinstance(module, q.AffineActivation):
                module.frozen = epoch >= max(1, (3 * epochs) // 4)

    return on_epoch


@torch.no_grad()
def clip_latent(model: nn.Module) -> None:
    """Constraint after each step: latent weights of ternary and binary layers stay in [-1, 1] (arXiv 1602.02830)."""
    for layer in model.modules():
        quantizer = getattr(layer, "weight_quantizer", None)
        if isinstance(quantizer, (q.BinaryWeight, q.TernaryWeight)):
            cast(nn.Parameter, layer.weight).clamp_(-1, 1)


def of(spec: QuantSpec, epochs: int) -> dict[str, Callable]:
    """What the loop is to call for this spec, see engine.training.loop.fit.

    Args:
        epochs: of the training.
    """
    found: dict[str, Callable] = {}
    if spec.weight.kind in ("binary", "ternary"):
        found["constrain"] = clip_latent
    if spec.activation.kind == "affine" or spec.measured_inputs:
        found["on_epoch"] = freeze_late(epochs)
    return found
