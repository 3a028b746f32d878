"""Networks to prune in float64, and the difference of two outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import forms, registry
from models.graph.channels.classes import channels
from prune.widths import Subject

BOUND = 1e-10  # of the largest output, in float64


def network(arch: str, cfg: list[int], seed: int, exact: bool = False) -> Subject:
    """Return a float64 network in eval mode whose BNs differ from fresh ones: gammas of both signs, random statistics.

    With `exact`, weights are small integers and scales powers of two, so that no sum is rounded in any order.
    """
    torch.manual_seed(seed)
    form = forms.build(arch, cfg, side=8).double().eval()
    for module in form.modules():
        if exact and isinstance(module, (nn.Conv2d, nn.Linear)):
            for tensor in module.parameters():
                tensor.data.copy_(torch.randint(-2, 3, tensor.shape))
        elif isinstance(module, nn.BatchNorm2d):
            gamma, beta, mean, var = module.weight.data, module.bias.data, module.running_mean, module.running_var
            if exact:
                var.copy_(4.0 ** torch.randint(0, 2, var.shape).double() - module.eps)
                assert set((var + module.eps).tolist()) <= {1.0, 4.0}  # so that the deviation is exactly 1 or 2
                gamma.copy_(2.0 ** torch.randint(0, 2, gamma.shape) * (1 - 2 * torch.randint(0, 2, gamma.shape)))
                beta.copy_(torch.randint(-2, 4, beta.shape))
                mean.copy_(torch.randint(-2, 3, mean.shape))
            else:
                gamma.normal_()
                beta.normal_(0.3)  # keeps most ReLUs alive
                mean.normal_(0, 0.3)
                var.uniform_(0.3, 2)
    return Subject(registry.build(arch, cfg).double(), form, channels(form, form.captured.whole), arch)


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))  # as a share of the largest value
