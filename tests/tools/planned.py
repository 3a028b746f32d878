"""Networks ready for a pruning plan, with scales that differ for each channel."""

from __future__ import annotations

import torch
from torch import nn

from models import forms, registry
from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from prune.widths import Subject


def tried(model: nn.Module, size: int = 32) -> Subject:
    form = capture(model, (3, size, size), "net")
    return Subject(model, form, channels(form), "net")


def own(arch: str, cfg: tuple[int, ...] | None = None, size: int = 8) -> Subject:
    """Return one of the toolkit's networks, as commands open it."""
    form = forms.build(arch, cfg, side=size)
    return Subject(registry.build(arch, cfg), form, channels(form, form.captured.whole), arch)


def with_scales(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            level = torch.rand(1, generator=generator) + 0.2
            module.weight.data = torch.randn(module.weight.shape, generator=generator).square() * level
    return model
