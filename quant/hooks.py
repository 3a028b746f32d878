"""What quantized training adds to the loop: ranges that freeze late, latent weights that are clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from models.layers.quantizers.base import Quantizer


def hooks(model: nn.Module, epochs: int) -> dict[str, Any]:
    """What fit is given for this network, as its quantizers ask for it: `constrain`, `on_epoch`."""
    found = [module for module in model.modules() if isinstance(module, Quantizer)]
    return {
        **({"constrain": clip_latent} if any(quantizer.latent for quantizer in found) else {}),
        "on_epoch": each_epoch(epochs),
    }


def each_epoch(epochs: int) -> Callable[[nn.Module, int], None]:
    """An on_epoch function that tells every quantizer the epoch, counted from 0, of so many."""

    def on_epoch(model: nn.Module, epoch: int) -> None:
        for module in model.modules():
            if isinstance(module, Quantizer):
                module.on_epoch(epoch, epochs)

    return on_epoch


@torch.no_grad()
def clip_latent(model: nn.Module) -> None:
    """Constraint after each step: latent weights stay in the interval that their quantizer names."""
    for layer in model.modules():
        if interval := getattr(getattr(layer, "weight_quantizer", None), "latent", None):
            cast(nn.Parameter, layer.weight).clamp_(*interval)
