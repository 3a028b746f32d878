"""A fixed size of pictures for detectors like torchvision's: their transform no longer scales or normalises."""

from __future__ import annotations

from torch import nn

from models.check import Misdeclared


def set_side(detector: nn.Module, side: int) -> None:
    """Let a detector read square pictures of this side without changing them.

    Raises:
        Misdeclared: exit 2 for a side that its transform would pad.
    """
    transform = getattr(detector, "transform", None)
    if transform is None or not hasattr(transform, "image_mean"):
        return
    step = int(getattr(transform, "size_divisible", 1))
    if side % step:
        raise Misdeclared(
            f"--image_size {side}: this detector reads pictures whose side is a multiple of {step}",
            f"give --image_size {max(step, round(side / step) * step)}",
        )
    transform.min_size, transform.max_size, transform.fixed_size = (side,), side, (side, side)
    transform.image_mean, transform.image_std = [0.0] * 3, [1.0] * 3
    transform._skip_resize = True


def normalisation(detector: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation of a detector's own transform, None without one like torchvision's."""
    transform = getattr(detector, "transform", None)
    if transform is None or not hasattr(transform, "image_mean"):
        return None
    return tuple(transform.image_mean), tuple(transform.image_std)
