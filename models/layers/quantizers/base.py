"""What quantizers share: the pair of codes and scale, pseudo-gradients where rounding has none, the module's base class.

A quantized tensor is codes * scale. Formulas have no state, and nothing edits its argument.

Activations are large and memory is slow, so comparisons are made in place on a copy (1 or 0 in its own type): a
mask of bools, turned into numbers, takes 3 to 8 times as long on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Kind = Literal["number", "round", "sign", "ternary"]


class Quantized(NamedTuple):
    """codes: integers kept as floats, 0 meaning 0. scale: None for 1, or broadcastable to the codes."""

    codes: Tensor
    scale: Tensor | None


class Steps(NamedTuple):
    """Codes of numbers for an engine: clamp(round half to even(x * inverse), low, high), each operation in fp32.

    A code stands for code * scale. Training divides by the scale, so that it may give the neighbour of a code where x lies
    within rounding of the middle between two.
    """

    inverse: float
    scale: float
    low: int
    high: int


class Rule(NamedTuple):
    """A quantizer as a formula of each number alone, for loops that compute more than codes: see models/fused/kernels.py.

    Args:
        kind: "round": clamp(round(x / step), low, high); "sign"; "ternary"; "number": x itself.
        step: of shape (), perhaps learned.
        margin: x / step has a gradient up to so far beyond `low` and `high`; None: between them, not at them.
        slope: of signs, as `slope` below has it.
        scale: what code 1 stands for, None for 1.
    """

    kind: Kind
    step: Tensor | float = 1.0
    low: Tensor | float = 0.0
    high: Tensor | float = 0.0
    margin: float | None = 0.0
    slope: str = "ste"
    scale: Tensor | float | None = None

    @property
    def learned(self) -> bool:
        return isinstance(self.step, Tensor) and self.step.requires_grad


class Signs(NamedTuple):
    """Codes of numbers for an engine, by comparison; they stand for themselves.

    Args:
        edge: None: +1 from 0 on, -1 below; else +1 above it, -1 below -edge, 0 between.
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
    """`value`, exactly, with d value / d x = `slope` (None: 1) (arXiv 1308.3432). Shapes: all alike."""
    return _StraightThrough.apply(x, value, slope) if wants_slope(x) else value


def wants_slope(x: Tensor) -> bool:
    """Whether a result of x will be differentiated: where networks are judged, slopes would cost more than codes."""
    return torch.is_grad_enabled() and x.requires_grad


def round_ste(x: Tensor) -> Tensor:
    """Round half to even; gradient 1.

    >>> x = torch.tensor([0.4, 1.5, -2.5], requires_grad=True)
    >>> y = round_ste(x); y.sum().backward(); y.tolist(), x.grad.tolist()
    ([0.0, 2.0, -2.0], [1.0, 1.0, 1.0])
    """
    return straight_through(x, x.detach().round())


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp, with gradient 1 on the edges, too: torch.clamp's differs there between versions."""
    raw = x.detach()
    value = raw.clamp(low, high)
    if not wants_slope(x):
        return value
    return straight_through(x, value, value.clone().eq_(raw))


def slope(x: Tensor, kind: str) -> Tensor | None:
    """Pseudo-derivative of sign: `ste` 1, `saturate` 1 inside [-1, 1] and 0 outside, `soft` max(0, 1 - |x|); None for 1 everywhere,
    and where nobody asks.

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
    """+1 or -1; sign(0) = +1, so that one bit is enough."""
    return x.detach().clone().ge_(0).mul_(2).sub_(1)


def filters(weight: Tensor) -> tuple[int, ...]:
    """The axes that a filter of a weight (out, ...) takes."""
    return tuple(range(1, weight.ndim))


class Quantizer(nn.Module):
    """The base: what every quantizer says of itself. A call gives `Quantized`.

    Attributes:
        bits: of a stored code.
        scales: how many numbers a filter are stored: scales and zero points (0: the scale is a constant of the formula, or 1).
        constants: the same for the whole layer.
        zero_points: how many of these numbers are zero points (a filter, if `scales`; else for the whole layer).
        signed: whether the activation codes may be negative wherever it stands, so that no ReLU may stand before it.
        sign_alone: whether the sign of its input is all that it looks at.
        latent: the interval that the layer's weights are clipped to after each step, None for none.
    """

    part_of_layer = True
    bits = 32
    scales = 0
    constants = 0
    zero_points = 0
    signed = False
    sign_alone = False
    latent: tuple[float, float] | None = None

    def on_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch of training, counted from 0."""

    def grid(self) -> Steps | Signs | None:
        """Which codes a layer's input gets, for an engine that runs the merged network. None: numbers pass as they are."""
        return None

    def codes_now(self) -> bool:
        """Whether an input is coded now, and does not pass as it is."""
        return False

    def span(self) -> tuple[int, int]:
        """The least and the largest code that an input can have now."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether `rule` tells all that a call does in training mode."""
        return False

    def asks_for_ends(self) -> bool:
        """Whether `rule` asks for the least and the largest number of its input."""
        return False

    def rule(self, features: int, ends: Callable[[], tuple[Tensor, Tensor]]) -> Rule:
        """How a batch is coded in training mode; state moves as by a call.

        Args:
            features: numbers of one picture.
            ends: gives the least and the largest number of the batch.
        """
        raise NotImplementedError

    def fault(self) -> str:
        """What of the state that a file gave it cannot be, in words; empty if nothing."""
        return ""

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
