"""One size of pictures for a detector of torchvision's kind: its transform neither scales nor normalises any more."""

from __future__ import annotations

from torch import nn

from models.check import Misdeclared


def set_side(detector: nn.Module, side: int) -> None:
    """Let a detector read square pictures of this side as they are.

    Raises:
        Misdeclared: exit 2 for a side that its transform would fill up.
    """
    transform = getattr(detector, "transform", None)
    if transform is None or not hasattr(transform, "image_mean"):
        return
    step = int(getattr(transform, "size_divisible", 1))
    if side % step:
        raise Misdeclared(
            f"--image_size {side}: this detector reads pictures whose side is a multiple of {step}",
            f"--image_size {max(step, round(side / step) * step)}",
        )
    transform.min_size, transform.max_size, transform.fixed_size = (side,), side, (side, side)
    transform.image_mean, transform.image_std = [0.0] * 3, [1.0] * 3
    transform._skip_resize = True


def normalisation(detector: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that a detector of torchvision's kind was made for; None if it has none of its own."""
    transform = getattr(detector, "transform", None)
    if transform is None or not hasattr(transform, "image_mean"):
        return None
    return tuple(transform.image_mean), tuple(transform.image_std)
