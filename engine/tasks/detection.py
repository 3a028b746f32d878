"""Detection: boxes with classes. The loss is the detector's own, the score COCO's mAP, and an answer the boxes of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.tasks.average_precision import check_installed, measured
from engine.tasks.base import Agreement, Evaluation, LossSettings, Task, finite
from engine.tasks.score import MAP

Boxes = dict[str, Tensor]
SHOWN = 0.3
"""Boxes with a lower score are no answer: an agreement does not look at them."""
NEAR, ALIKE = 0.5, 0.01
"""Pixels between corners, and difference of scores, of boxes that are the same."""
MARGIN = 1e-3
"""Of the largest number of an output: fp32 sums in another order move none as far."""
TOGETHER = 64
"""Pictures whose boxes are made at a time."""


class Detector(Protocol):
    """A detector's own code around its core; models.detectors.shell has it."""

    def losses(self, output: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]: ...

    def boxes(self, output: Tensor) -> list[Boxes]: ...


class Detection(Task):
    """An output is what a detector's core gives, (B, numbers); a target a list of B pictures' boxes and labels.

    Args:
        detector: makes losses and boxes of it.
        classes: of objects.

    Raises:
        UserError: exit 2 where the evaluator is not installed.
    """

    score = MAP
    loss_name = "loss"
    output_name = "numbers"
    gap_name = "largest difference of a number"
    margin_words = "its best score was {}"

    def __init__(self, detector: Detector, classes: int) -> None:
        check_installed()
        self.detector, self.classes = detector, classes

    def loss(self, output: Tensor, target: Any, settings: LossSettings) -> Tensor:
        fine = output if output.dtype == torch.float64 else output.float()
        return torch.stack([value.reshape(()) for value in self.detector.losses(fine, target).values()]).sum()

    def right(self, output: Tensor, target: Any) -> Tensor:
        return output.new_zeros(())

    def training_score(self, right: int, seen: int) -> None:
        return None

    @torch.no_grad()
    def measure(self, outputs: list[Tensor], targets: list[Any]) -> Evaluation:
        pictures = sum(map(len, outputs))
        if not all(self.is_finite(output) for output in outputs):
            return Evaluation(0.0, float("nan"), torch.cat(outputs).cpu())
        lost = sum(
            len(output) * self.loss(output, [_learned(one) for one in target], _NOTHING).double().item()
            for output, target in zip(outputs, targets, strict=True)
        )
        found = [one for output in outputs for one in self._found(output)]
        truth = [one for target in targets for one in target]
        judged = measured(found, truth, self.classes)
        more = {"mAP50": 100 * judged.half, "recall": 100 * judged.recall}
        return Evaluation(100 * judged.mean, lost / max(1, pictures), torch.cat(outputs).cpu(), more)

    def _found(self, output: Tensor) -> list[Boxes]:
        fine = output if output.dtype == torch.float64 else output.float()
        return [{key: value.cpu() for key, value in one.items()}
                for part in fine.split(TOGETHER) if len(part) for one in self.detector.boxes(part)]  # fmt: skip

    def agreement(self, before: Tensor, after: Tensor) -> Agreement:
        """Pictures with the same boxes: each with a score of 0.3 or more has one of the same class in the other network's
        answer, half a pixel and 0.01 of the score away at most.
        """
        both_finite = (before.isfinite() & after.isfinite()).flatten(1).all(1)
        differ: dict[int, float | None] = {}
        for number in (~both_finite).nonzero().flatten().tolist():
            differ[number] = None
        sound = both_finite.nonzero().flatten()
        pairs = zip(self._found(before[sound]), self._found(after[sound]), strict=True)
        for number, (one, other) in zip(sound.tolist(), pairs, strict=True):
            if not (_covered(one, other) and _covered(other, one)):
                differ[number] = finite(one["scores"].max()) if len(one["scores"]) else 0.0
        gap = (before.double() - after.double()).abs().max() if len(before) else before.new_zeros(())
        return Agreement(len(before), len(before) - len(differ), finite(gap), dict(sorted(differ.items())))

    def surely_moved(self, before: Tensor, after: Tensor) -> int:
        """With a number that moved by more than 1e-3 of the largest one."""
        off = (before.double() - after.double()).abs().flatten(1).amax(1)
        return int((~(off <= MARGIN * before.abs().max().clamp_min(1))).sum())

    def numbers(self, output: Tensor) -> Tensor:
        return output


class _Settings:
    label_smoothing = 0.0


_NOTHING = _Settings()


def _learned(target: Boxes) -> Boxes:
    """The objects that a loss knows: none of a crowd."""
    keep = ~target["crowd"] if "crowd" in target else torch.ones_like(target["labels"], dtype=torch.bool)
    return {"boxes": target["boxes"][keep], "labels": target["labels"][keep]}


def _covered(one: Boxes, other: Boxes) -> bool:
    """Whether each box that is shown has its like in the other answer."""
    shown = one["scores"] >= SHOWN
    boxes, labels, scores = (one[key][shown] for key in ("boxes", "labels", "scores"))
    if not len(boxes):
        return True
    if not len(other["boxes"]):
        return False
    near = (boxes[:, None] - other["boxes"][None]).abs().amax(2) <= NEAR
    alike = (scores[:, None] - other["scores"][None]).abs() <= ALIKE
    return bool((near & alike & (labels[:, None] == other["labels"][None])).any(1).all())
