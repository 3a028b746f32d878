"""The nine numbers of a segment's passes over memory: its clamps, its rounding, and the range where it has a slope."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from models.fused.channels import constant
from models.layers.quantizers.base import Rule

Act = Literal["none", "relu", "relu6"]
ENDS: dict[Act, tuple[float, float]] = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
"""The ends to which each activation clamps. It has a slope between its ends, not at them."""


def grid_of(rule: Rule, act: Act, device: torch.device) -> Tensor:
    """Return bottom, top, step, low, high, least, most, first, last of kernels.py: (9,), fp32."""
    learned = any(isinstance(value, Tensor) for value in (rule.step, rule.low, rule.high))
    return _of(rule, act, device) if learned else _fixed(rule._replace(scale=None), act, device)


@cache
def _fixed(rule: Rule, act: Act, device: torch.device) -> Tensor:
    return _of(rule, act, device)


@torch.no_grad()
def _of(rule: Rule, act: Act, device: torch.device) -> Tensor:
    step, low, high = (_number(value, device) for value in (rule.step, rule.low, rule.high))
    far = torch.full_like(step, math.inf)
    bottom, top = (torch.full_like(step, end) for end in ENDS[act])
    first, last = far, -far  # the step has no gradient
    least, most = -far, far
    if rule.kind in ("round", "share"):
        least, most = _slopes(rule, low, high)
        if rule.learned:
            first, last = least, most
    elif rule.kind != "number" and rule.slope == "saturate":
        least, most = -torch.ones_like(step), torch.ones_like(step)
    least = torch.maximum(least, torch.nextafter(bottom / step, far))
    most = torch.minimum(most, torch.nextafter(top / step, -far))
    return torch.stack([bottom, top, step, low, high, least, most, first, last])


def _slopes(rule: Rule, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest x / step that have a gradient."""
    if rule.slopes == "within":
        return low, high
    if rule.slopes == "between":
        return torch.nextafter(low, high), torch.nextafter(high, low)
    # halves go to even: half a step beyond an odd end, a number is rounded away from it
    least, most = low - 0.5, high + 0.5
    return torch.where(low % 2 == 0, least, torch.nextafter(least, high)), torch.where(
        high % 2 == 0, most, torch.nextafter(most, low)
    )


def _number(value: Tensor | float, device: torch.device) -> Tensor:
    return value.detach().to(device, torch.float32) if isinstance(value, Tensor) else constant(value, device)
