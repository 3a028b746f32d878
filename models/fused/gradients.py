"""The gradients of a segment by hand where numbers are many, by autograd where there are as many as channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from models.fused import loops
from models.layers.quantizers.base import Rule

Act = Literal["none", "relu", "relu6"]
ENDS: dict[Act, tuple[float, float]] = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
"""What an activation clamps to. Between its ends, not at them, it has a slope."""
Factors = Callable[..., tuple[Tensor, Tensor]]
"""Of mean, variance and parameters, what numbers are multiplied by and what is added, of each channel."""


def rows(z: Tensor) -> Tensor:
    """(B, C, H, W) as (B H W, C)."""
    return z.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, z.shape[1])


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """As models.layers.conv_q.moments, in one pass each way."""
    return _Moments.apply(rows(z))


def measured(z: Tensor, ends: bool) -> tuple[Tensor, ...]:
    """Mean and variance of each channel of rows; with `ends` its least and largest number, too.

    Raises:
        ValueError: for a single row, as torch's own batch norm does.
    """
    if len(z) < 2:
        raise ValueError("a batch norm cannot be trained on one number a channel")
    k = z[0].float()  # so that a mean far from 0 costs the variance no digits
    first, second, *rest = loops.moments(z, k, ends)
    apart = first / len(z)
    return (k + apart, (second / len(z) - apart * apart).clamp_min(0), *rest)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = measured(z, False)
        ctx.save_for_backward(z, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        z, mean = ctx.saved_tensors
        of_mean, of_var = grads
        return loops.spread(z, mean, of_mean / len(z), of_var * (2 / len(z)))


class Coded(torch.autograd.Function):
    """Rows of numbers to rows of codes of act((z - mean) a + c)."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, mean: Tensor, var: Tensor, factors: Factors, rule: Rule, act: Act, dtype: torch.dtype,
        step: Tensor | None, *learned: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """
        Args:
            mean, var: of each channel of z.
            factors: of mean, var and `learned`, gives a and c.
            step: that of the rule, if it is learned.
            learned: what else a and c are made of.
        """
        with torch.enable_grad():
            inputs = [mean.clone().requires_grad_(), var.clone().requires_grad_()]
            inputs += [None if t is None else t.detach().requires_grad_() for t in learned]  # type: ignore[misc]
            a, c = factors(*inputs)
        grid = _grid(rule, act, z.device)
        of_x = (a.detach().contiguous(), c.detach().contiguous())
        ctx.save_for_backward(z, mean, *(end / grid[2] for end in of_x), grid)
        ctx.rule, ctx.small = rule, (a, c, inputs)
        return loops.coded(z, mean, *of_x, grid, rule.kind, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        z, mean, of_v_a, of_v_c, grid = ctx.saved_tensors
        (a, c, inputs), rule, step = ctx.small, ctx.rule, grid[2]
        g, told = grads[0].contiguous(), (mean, of_v_a, of_v_c, grid)
        of_inputs: Sequence[Tensor | None] = [None] * len(inputs)
        of_step = None
        if a.requires_grad or c.requires_grad or rule.learned:
            of_a, of_c, of_v = loops.sums(g, z, *told, rule.kind, rule.slope)
            of_step = -(of_v.sum() / step) if rule.learned else None
            of_inputs = _followed((a, c), inputs, (of_a / step, of_c / step))
        of_mean, of_var, *rest = of_inputs
        zero = torch.zeros_like(mean)
        e0 = zero if of_mean is None else of_mean / len(z)
        e1 = zero if of_var is None else of_var * (2 / len(z))
        of_z = loops.back(g, z, *told, e0, e1, rule.kind, rule.slope) if ctx.needs_input_grad[0] else None
        return (of_z, *(None,) * 6, of_step, *rest)


def _followed(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor | None], grads: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Gradients of outputs handed on to the inputs that they were made of."""
    pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
    wanted = [value for value in inputs if value is not None]
    if not pairs:
        return [None] * len(inputs)
    found = iter(torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True))
    return [None if value is None else next(found) for value in inputs]


def _grid(rule: Rule, act: Act, device: torch.device) -> Tensor:
    """bottom, top, step, low, high, least, most, first, last of kernels.py: (9,), fp32."""
    step, low, high = (
        torch.as_tensor(number, dtype=torch.float32, device=device).detach()
        for number in (rule.step, rule.low, rule.high)
    )
    far = torch.full_like(step, math.inf)
    bottom, top = (torch.full_like(step, end) for end in ENDS[act])
    first, last = far, -far  # of the step: nowhere
    least, most = -far, far
    if rule.kind == "round" and rule.margin is None:
        first, last = torch.nextafter(low, high), torch.nextafter(high, low)
    elif rule.kind == "round" and rule.margin is not None:
        first, last = low - rule.margin, high + rule.margin
    elif rule.kind != "number" and rule.slope == "saturate":
        least, most = -torch.ones_like(step), torch.ones_like(step)
    if rule.kind == "round":
        least, most = first, last
    least = torch.maximum(least, torch.nextafter(bottom / step, far))
    most = torch.minimum(most, torch.nextafter(top / step, -far))
    return torch.stack([bottom, top, step, low, high, least, most, first, last])
