"""Hooks of quantized training: ranges freeze late in training, and latent weights are clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from models.layers.quantizers.base import Quantizer


def hooks(model: nn.Module, epochs: int) -> dict[str, Any]:
    """Return the keywords of fit that this network's quantizers need: `on_epoch`, and `constrain` to clip weights."""
    found = [module for module in model.modules() if isinstance(module, Quantizer)]
    return {
        **({"constrain": clip_latent} if any(quantizer.latent for quantizer in found) else {}),
        "on_epoch": each_epoch(epochs),
    }


def each_epoch(epochs: int) -> Callable[[nn.Module, int], None]:
    """Return an on_epoch function that passes the epoch, counted from 0, and `epochs` to every quantizer."""

    def on_epoch(model: nn.Module, epoch: int) -> None:
        for module in model.modules():
            if isinstance(module, Quantizer):
                module.on_epoch(epoch, epochs)

    return on_epoch


@torch.no_grad()
def clip_latent(model: nn.Module) -> None:
    """Clip latent weights, in place, to the interval of their quantizer. Call it after each step."""
    for layer in model.modules():
        if interval := getattr(getattr(layer, "weight_quantizer", None), "latent", None):
            cast(nn.Parameter, layer.weight).clamp_(*interval)
