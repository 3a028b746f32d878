"""Classification: one class a picture. The loss is cross-entropy, the score accuracy, the answer the largest logit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.tasks.base import Agreement, Evaluation, LossSettings, Task, fine, finite
from engine.tasks.score import ACCURACY

MARGIN = 1e-5
"""Margin relative to the largest logit. A changed order of fp32 sums does not move an answer with this margin."""


class Classification(Task):
    """The task of classifiers. An output is logits, (B, classes); a target is labels, int64 (B,)."""

    score = ACCURACY
    loss_name = "cross-entropy"
    output_name = "logits"
    gap_name = "largest logit difference"
    margin_words = "its two best logits were {} apart"

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return F.cross_entropy(fine(output), target, label_smoothing=settings.label_smoothing)

    def right(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.detach().argmax(1) == target).sum()

    def training_score(self, right: int, seen: int) -> float:
        return 100 * right / seen

    def measure(self, outputs: list[Tensor], targets: list[Tensor]) -> Evaluation:
        logits, labels = torch.cat(outputs).cpu(), torch.cat(targets).cpu()
        right = (logits.argmax(1) == labels).double().mean().item()
        return Evaluation(100 * right, F.cross_entropy(logits, labels).item(), logits)

    def agreement(self, before: Tensor, after: Tensor) -> Agreement:
        both_finite = before.isfinite().all(1) & after.isfinite().all(1)
        same = both_finite & (before.argmax(1) == after.argmax(1))
        lead = _lead(before)
        apart = {int(i): finite(lead[i]) for i in (~same).nonzero().flatten()}
        gap = (before.double() - after.double()).abs().max() if len(before) else before.new_zeros(())
        return Agreement(len(before), int(same.sum()), finite(gap), apart)

    def surely_moved(self, before: Tensor, after: Tensor) -> int:
        """Count pictures of another class whose two best logits in `before` differ by at least 1e-5 of the largest."""
        apart = _lead(before) >= MARGIN * before.abs().max().clamp_min(1)
        return int(((before.argmax(1) != after.argmax(1)) & apart).sum())

    def numbers(self, output: Tensor) -> Tensor:
        return output


def _lead(logits: Tensor) -> Tensor:
    """Return by how much the best logit exceeds the second, (B,); 0 for one class."""
    best = logits.topk(min(2, logits.shape[1]), dim=1).values
    return best[:, 0] - best[:, -1]


CLASSIFICATION = Classification()
"""The task of every command, unless its network is a detector."""
