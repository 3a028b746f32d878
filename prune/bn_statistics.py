"""Batch norm statistics re-estimated after surgery."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.data.info import Split


@torch.no_grad()
def reestimate_bn(model: nn.Module, split: Split, batch: int, seed: int, batches: int = 50) -> None:
    """Re-estimate BN statistics, in place, as means over training batches: surgery made the old ones stale.

    All other modules run as in evaluation: dropout would change what the norms read. A batch's variance is unbiased.

    Args:
        split: training pictures.
        batch: pictures a batch, at most the whole split.
        seed: of the order of the pictures.
        batches: number of batches. A small split is read several times.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    was_training, dtype = model.training, next(model.parameters()).dtype
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative
        model.eval()
        for norm in norms:
            norm.train()
        done = epoch = 0
        while done < batches:
            for images, _ in split.training_batches(min(batch, len(split)), seed, epoch):
                model(images.to(dtype))
                done += 1
                if done == batches:
                    break
            epoch += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)
