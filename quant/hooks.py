"""What quantized training adds to the loop: activation ranges that freeze late, latent weights that are clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from models.layers import quantizers as q


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
