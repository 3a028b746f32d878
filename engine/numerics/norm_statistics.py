"""Update the running statistics of batch norms."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def move_statistics(norm: _BatchNorm, mean: Tensor, var: Tensor, count: int) -> None:
    """Update a norm's running statistics from a batch, as it does in training.

    Args:
        mean, var: the batch's statistics, (C,); the variance is biased (divided by `count`).
        count: values in each channel.
    """
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.to(mean.dtype)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(var * count / max(count - 1, 1), share)
