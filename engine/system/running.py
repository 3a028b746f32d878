"""Running statistics of batch norms: how those of a batch move them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def move_statistics(norm: _BatchNorm, mean: Tensor, var: Tensor, count: int) -> None:
    """Move a norm's running statistics by those of a batch, as it would in training.

    Args:
        mean, var: of each channel, (C,); the variance divided by `count`.
        count: numbers a channel.
    """
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.to(mean.dtype)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(var * count / max(count - 1, 1), share)
