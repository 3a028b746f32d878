"""Train one network in several processes: each has a share of every batch; gradients and statistics cover the whole
batch.

torch's DistributedDataParallel averages the gradients. torch's SyncBatchNorm does not work on a CPU, so batch norms
combine the ranks' statistics here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from engine.errors import UserError
from engine.numerics.norm_statistics import move_statistics
from engine.system import ranks


def refuse(batch: int) -> None:
    """Refuse a batch that ranks cannot share equally, or with fewer than two pictures for each.

    Raises:
        UserError: for such a batch (exit 2).
    """
    count = ranks.count()
    if count > 1 and (batch % count or batch < 2 * count):
        why = "cannot share it equally" if batch % count else "would have one picture each"
        raise UserError(
            f"--train_batch_size {batch}: {count} processes {why}", f"take a multiple of {count}, at least {2 * count}"
        )


def compare_buffers(model: nn.Module) -> None:
    """Refuse a network whose buffers differ between ranks, because a layer updates them from its rank's share alone.

    Raises:
        UserError: naming the buffer (exit 2).
    """
    mine = {name: float(buffer.double().sum()) for name, buffer in model.named_buffers()}
    every = ranks.gathered(mine)
    for name in mine:
        values = [of[name] for of in every]
        if max(values) - min(values) > 1e-6 * max(map(abs, values)):
            text = (
                f"{name} differs between the {len(every)} processes: its layer updates it from its own share of a batch"
            )
            raise UserError(text, "train this network in one process")


@contextmanager
def shared(compute: nn.Module, model: nn.Module) -> Iterator[nn.Module]:
    """Yield a module that computes as `compute` does, with gradients averaged over ranks; `compute` for one rank.

    Args:
        model: the network; within the block its batch norms use statistics of the whole batch.
    """
    if ranks.count() == 1:
        yield compute
        return
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and type(m).forward is _BatchNorm.forward]
    try:
        for norm in norms:
            norm.forward = partial(_normed, norm)  # type: ignore[method-assign]
        device = next(model.parameters()).device
        places = [device.index or 0] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions of torch rename this argument
            averaged = DistributedDataParallel(compute, places, broadcast_buffers=False, find_unused_parameters=True)
        yield averaged
    finally:
        for norm in norms:
            del norm.forward


def _normed(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Apply a batch norm with the statistics of all ranks' pictures."""
    if not norm.training:  # in evaluation, ranks may have different numbers of batches
        return _BatchNorm.forward(norm, x)
    mean, var, count = _statistics(x.detach(), norm.eps)
    move_statistics(norm, mean, var, count)
    return _Normed.apply(x, mean, var, norm.weight, norm.bias, norm.eps, count)


@torch.no_grad()
def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor, int]:
    """Return mean and variance of each channel over all ranks, and the number of values in a channel.

    torch's fast kernel computes each rank's statistics; they are combined in fp64.

    Raises:
        ValueError: for a single value in a channel, like torch's own batch norm.
    """
    own, kind = x.numel() // x.shape[1], torch.promote_types(x.dtype, torch.float32)
    one = torch.ones(x.shape[1], dtype=kind, device=x.device)  # at least fp32, so that the statistics are, too
    _, mean, inverse = torch.ops.aten.native_batch_norm(x, one, one, None, None, True, 0.0, eps)
    mean, var = mean.double(), inverse.double() ** -2 - eps
    first, second, count = ranks.reduced(
        torch.stack([own * mean, own * (var + mean.square()), torch.full_like(mean, own)]), "SUM"
    )
    if count[0] < 2:
        raise ValueError("a batch norm cannot be trained on one number a channel")
    mean = first / count
    return mean.to(kind), (second / count - mean.square()).clamp_min(0).to(kind), int(count[0])


class _Normed(torch.autograd.Function):
    """gamma (x - mean) / sqrt(var + eps) + beta, with the mean and variance of x over all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        eps: float,
        count: int,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, var, gamma)
        ctx.told = (eps, count)
        return F.batch_norm(x, mean, var, gamma, beta, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, mean, var, gamma = ctx.saved_tensors
        eps, count = ctx.told
        weight = torch.ones_like(mean) if gamma is None else gamma
        of_x, of_gamma, of_beta = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, weight, mean, var, None, None, False, eps, [True, True, True]
        )  # treats mean and variance as constants
        sum_of_beta, sum_of_gamma = ranks.reduced(torch.stack([of_beta, of_gamma]), "SUM")
        inverse = (var + eps).rsqrt()
        along = weight * inverse.square() * sum_of_gamma / count
        apart = weight * inverse * sum_of_beta / count - along * mean
        shape = [1, -1, *(1,) * (x.ndim - 2)]
        of_x = of_x.sub_(apart.reshape(shape).to(x.dtype)).addcmul_(x, along.reshape(shape).to(x.dtype), value=-1)
        of_gamma, of_beta = (
            found if asked else None
            for found, asked in zip((of_gamma, of_beta), ctx.needs_input_grad[3:5], strict=True)
        )
        return of_x, None, None, of_gamma, of_beta, None, None
