"""Detection: boxes with classes. The loss is the detector's own, the score COCO's mAP, and an answer the boxes of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.tasks.average_precision import check_installed, measured
from engine.tasks.base import Agreement, Evaluation, LossSettings, Task, fine, finite
from engine.tasks.score import MAP

Boxes = dict[str, Tensor]
SHOWN = 0.3
"""Boxes with a lower score are no answer: an agreement does not look at them."""
NEAR, ALIKE = 0.5, 0.01
"""Pixels between corners, and difference of scores, of boxes that are the same."""
_NONE = {"boxes": (0, 4), "labels": (0,), "scores": (0,)}


@dataclass(frozen=True)
class Seen:
    """What is kept of an evaluation, on the CPU.

    Args:
        boxes: of each picture; none where its numbers are not finite.
        losses, finite: of each picture, (B,).
    """

    boxes: list[Boxes]
    losses: Tensor
    finite: Tensor


class Detector(Protocol):
    """A detector's own code around its core; models.detectors.shell has it."""

    def losses(self, output: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]: ...

    def boxes(self, output: Tensor) -> list[Boxes]: ...


class Detection(Task):
    """An output is what a detector's core gives, (B, numbers), of which an evaluation keeps boxes and losses; a target a list of B
    pictures' boxes and labels.

    Args:
        detector: makes losses and boxes of it.
        classes: of objects.

    Raises:
        UserError: exit 2 where the evaluator is not installed.
    """

    score = MAP
    loss_name = "loss"
    output_name = "numbers"
    gap_name = "largest difference of a score"
    margin_words = "its best score was {}"

    def __init__(self, detector: Detector, classes: int) -> None:
        check_installed()
        self.detector, self.classes = detector, classes

    def loss(self, output: Tensor, target: Any, settings: LossSettings) -> Tensor:
        found = self.detector.losses(fine(output), target)
        return torch.stack([value.reshape(()) for value in found.values()]).sum()

    def right(self, output: Tensor, target: Any) -> Tensor:
        return output.new_zeros(())

    def training_score(self, right: int, seen: int) -> None:
        return None

    @torch.no_grad()
    def kept(self, output: Tensor, target: Any) -> Seen:
        """Boxes: a core's numbers are some hundred thousand a picture."""
        finite = output.isfinite().flatten(1).all(1)
        losses = output.new_full((len(output),), math.nan, dtype=torch.float64)
        boxes: list[Boxes] = [{key: output.new_zeros(size) for key, size in _NONE.items()}] * len(output)
        for number in finite.nonzero().flatten().tolist():
            one = output[number : number + 1]  # by itself: the loss of some detectors depends on the pictures beside it
            losses[number] = self.loss(one, [_learned(target[number])], _NOTHING)
            boxes[number] = self.detector.boxes(fine(one))[0]
        return Seen([{key: value.cpu() for key, value in one.items()} for one in boxes], losses.cpu(), finite.cpu())

    def measure(self, outputs: list[Seen], targets: list[Any]) -> Evaluation:
        seen = _together(outputs)
        truth = [{key: value.cpu() for key, value in one.items()} for target in targets for one in target]
        if not bool(seen.finite.all()):
            return Evaluation(0.0, math.nan, seen)
        judged = measured(seen.boxes, truth, self.classes)
        more = {"mAP50": 100 * judged.half, "recall": 100 * judged.recall}
        return Evaluation(100 * judged.mean, float(seen.losses.mean()), seen, more)

    def agreement(self, before: Seen, after: Seen) -> Agreement:
        """Pictures with the same boxes: each with a score of 0.3 or more has one of the same class in the other network's
        answer, half a pixel and 0.01 of the score away at most.
        """
        both, differ, gap = before.finite & after.finite, dict[int, float | None](), 0.0
        for number, (one, other) in enumerate(zip(before.boxes, after.boxes, strict=True)):
            if not both[number]:
                differ[number] = None
                continue
            found = [_unlike(one, other), _unlike(other, one)]
            if None in found:
                differ[number] = finite(one["scores"].max()) if len(one["scores"]) else 0.0
            gap = max([gap, *(value for value in found if value is not None)])
        return Agreement(len(both), len(both) - len(differ), gap if bool(both.all()) else None, differ)

    def surely_moved(self, before: Seen, after: Seen) -> int:
        """With a box that has not its like in the other answer."""
        return len(self.agreement(before, after).differ)

    def numbers(self, output: Tensor) -> Tensor:
        return output


class _Settings:
    label_smoothing = 0.0


_NOTHING = _Settings()


def _learned(target: Boxes) -> Boxes:
    """The objects that a loss knows: none of a crowd."""
    keep = ~target["crowd"] if "crowd" in target else torch.ones_like(target["labels"], dtype=torch.bool)
    return {"boxes": target["boxes"][keep], "labels": target["labels"][keep]}


def _unlike(one: Boxes, other: Boxes) -> float | None:
    """The largest difference of a score between boxes that are shown and their like in the other answer; None: one has none."""
    shown = one["scores"] >= SHOWN
    boxes, labels, scores = (one[key][shown] for key in ("boxes", "labels", "scores"))
    if not len(boxes):
        return 0.0
    if not len(other["boxes"]):
        return None
    near = (boxes[:, None] - other["boxes"][None]).abs().amax(2) <= NEAR
    apart = (scores[:, None] - other["scores"][None]).abs()
    like = near & (apart <= ALIKE) & (labels[:, None] == other["labels"][None])
    if not bool(like.any(1).all()):
        return None
    return float(apart.masked_fill(~like, math.inf).amin(1).max())


def _together(parts: list[Seen]) -> Seen:
    boxes = [one for part in parts for one in part.boxes]
    return Seen(boxes, torch.cat([part.losses for part in parts]), torch.cat([part.finite for part in parts]))
