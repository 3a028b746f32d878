"""The common part of quantizers: the pair of codes and scale, pseudo-gradients for rounding, the base class.

A quantized tensor is codes * scale. Formulas have no state, and no function changes its argument.

Activations are large and memory is slow, so comparisons are made in place on a copy (1 or 0 in its own type). A mask of
bools that is converted to numbers takes 3 to 8 times as long on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Kind = Literal["number", "round", "sign", "ternary", "share"]


class Quantized(NamedTuple):
    """Codes, integers stored as floats with 0 for 0, and their scale, None for 1, or broadcastable to the codes."""

    codes: Tensor
    scale: Tensor | None


class Steps(NamedTuple):
    """The codes of numbers for an engine: clamp(round half to even(x * inverse), low, high), each operation in fp32.

    A code stands for code * scale. Training divides by the scale, so it may give the neighbouring code if x is within
    rounding of the middle between two codes.
    """

    inverse: float
    scale: float
    low: int
    high: int


class Rule(NamedTuple):
    """A quantizer as a formula for a single number, for fused loops: see models/fused/kernels.py.

    Args:
        kind: "round": clamp(round(x / step), low, high); "share": clamp(round(0.1 x high), low, high), see dorefa.py;
            "sign"; "ternary"; "number": x itself.
        step: of shape (), perhaps learned.
        slopes: where x / step has a gradient: "between" low and high alone, "within" them, so at both ends too, or where it
            is "rounded" to a number within them.
        slope: for signs, a kind of the function `slope`.
        scale: the value of code 1, None for 1.
    """

    kind: Kind
    step: Tensor | float = 1.0
    low: Tensor | float = 0.0
    high: Tensor | float = 0.0
    slopes: Literal["between", "within", "rounded"] = "within"
    slope: str = "ste"
    scale: Tensor | float | None = None

    @property
    def learned(self) -> bool:
        return isinstance(self.step, Tensor) and self.step.requires_grad


class Signs(NamedTuple):
    """The codes of numbers for an engine, by comparison, with scale 1.

    Args:
        edge: None: +1 for x >= 0, else -1; a number: +1 above it, -1 below its negative, 0 between.
    """

    edge: float | None = None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:
        ctx.slope = slope
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] if ctx.slope is None else grads[0] * ctx.slope, None, None


def straight_through(x: Tensor, value: Tensor, slope: Tensor | None = None) -> Tensor:
    """Return exactly `value`, with d value / d x = `slope` (None: 1) (arXiv 1308.3432). All have the same shape."""
    return _StraightThrough.apply(x, value, slope) if wants_slope(x) else value


def wants_slope(x: Tensor) -> bool:
    """Return whether a gradient for x may be needed; in evaluation, slopes would cost more time than codes."""
    return torch.is_grad_enabled() and x.requires_grad


def round_ste(x: Tensor) -> Tensor:
    """Round half to even; gradient 1.

    >>> x = torch.tensor([0.4, 1.5, -2.5], requires_grad=True)
    >>> y = round_ste(x); y.sum().backward(); y.tolist(), x.grad.tolist()
    ([0.0, 2.0, -2.0], [1.0, 1.0, 1.0])
    """
    return straight_through(x, x.detach().round())


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp, with gradient 1 on the edges, where torch.clamp's gradient differs between versions."""
    raw = x.detach()
    value = raw.clamp(low, high)
    if not wants_slope(x):
        return value
    return straight_through(x, value, value.clone().eq_(raw))


def slope(x: Tensor, kind: str) -> Tensor | None:
    """Return a pseudo-derivative of sign, or None for 1 everywhere, or if no gradient is needed.

    `ste` is 1, `saturate` 1 inside [-1, 1] and 0 outside, `soft` max(0, 1 - |x|).

    Raises:
        ValueError: for another kind.
    """
    if kind == "ste" or (kind in ("saturate", "soft") and not wants_slope(x)):
        return None
    x = x.detach()
    if kind == "saturate":
        return x.abs().le_(1)
    if kind == "soft":
        return (1 - x.abs()).clamp_min(0)
    raise ValueError(f"unknown straight-through estimator {kind!r}: ste, saturate or soft")


def sign(x: Tensor) -> Tensor:
    """Return +1 or -1, with sign(0) = +1 so that one bit is enough."""
    raw = x.detach()
    return torch.ge(raw, 0, out=torch.empty_like(raw)).mul_(2).sub_(1)


def filters(weight: Tensor) -> tuple[int, ...]:
    """Return the axes of a filter in a weight (out, ...)."""
    return tuple(range(1, weight.ndim))


class Quantizer(nn.Module):
    """The base class of quantizers. A call returns `Quantized`.

    Attributes:
        bits: bits of a stored code.
        scales: scales and zero points stored for each filter (0: the scale is a constant of the formula, or 1).
        constants: scales and zero points stored for the whole layer.
        zero_points: how many of these are zero points (for each filter if `scales`, else for the layer).
        signed: whether activation codes may be negative anywhere, so that no ReLU may precede it.
        sign_alone: whether it depends only on the sign of its input.
        repeats: whether a weight's codes depend on nothing but the weight and the module's own parameters and buffers.
            A subclass that is also so has to say so itself.
        latent: the interval that the layer's weights are clipped to after each step, or None.
    """

    part_of_layer = True
    bits = 32
    scales = 0
    constants = 0
    zero_points = 0
    signed = False
    sign_alone = False
    repeats = False
    latent: tuple[float, float] | None = None

    def on_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch of training, counted from 0."""

    def grid(self) -> Steps | Signs | None:
        """Return the codes of a layer's input, for an engine that runs the merged network; None for uncoded numbers."""
        return None

    def in_units(self, weight: Tensor) -> Tensor:
        """Return a layer's weight in the units of its input's codes times their scale, before it is quantized."""
        return weight

    def codes_now(self) -> bool:
        """Return whether an input is now coded, and not passed on unquantized."""
        return False

    def span(self) -> tuple[int, int]:
        """Return the least and the largest code that an input can now have."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Return whether `rule` describes a call completely now."""
        return False

    def asks_for_ends(self) -> bool:
        """Return whether `rule` needs the least and the largest number of its input."""
        return False

    def rule(self, features: int, ends: Callable[[], tuple[Tensor, Tensor]]) -> Rule:
        """Return the rule that codes a batch, and in training mode update the state like a call.

        Args:
            features: number of values in one picture.
            ends: returns the least and the largest number of the batch.
        """
        raise NotImplementedError

    def fault(self) -> str:
        """Return what is wrong with the state from a file, in words; empty if nothing."""
        return ""

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
