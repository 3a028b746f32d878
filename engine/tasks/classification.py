"""Classification: accuracy and cross-entropy of a network over a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.data.info import Split


@dataclass
class Judgement:
    """Accuracy in percent and mean cross-entropy over all pictures of a split; logits (N, classes) on the CPU."""

    accuracy: float
    loss: float
    logits: Tensor


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, batch: int = 500, after_batch: Callable[[], None] | None = None
) -> Judgement:
    """Judge a network in eval mode, in its own arithmetic (fp32 or fp64); its training mode is put back."""
    was_training = model.training
    model.eval()
    tensors = [*model.parameters(), *model.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    outputs, answers = [], []
    for images, labels in split.batches(batch):
        outputs.append(model(images.to(dtype)))
        answers.append(labels)
        if after_batch:
            after_batch()
    model.train(was_training)
    logits, labels = torch.cat(outputs).cpu(), torch.cat(answers).cpu()
    right = (logits.argmax(1) == labels).double().mean().item()
    return Judgement(100 * right, F.cross_entropy(logits, labels).item(), logits)
