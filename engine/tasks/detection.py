"""Detection: boxes with classes. The loss is the detector's, the score COCO's mAP, an answer the boxes of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.system.messages import notice
from engine.tasks.average_precision import check_installed, measured
from engine.tasks.base import Agreement, Evaluation, LossSettings, Task, fine, finite
from engine.tasks.score import MAP

Boxes = dict[str, Tensor]
SHOWN = 0.3
"""Boxes with a lower score are ignored in agreements."""
NEAR, ALIKE = 0.5, 0.01
"""Two boxes are the same up to this distance of corners, in pixels, and this difference of scores."""
_NONE = {"boxes": (0, 4), "labels": (0,), "scores": (0,)}


@dataclass(frozen=True)
class Seen:
    """The kept part of an evaluation, on the CPU.

    Args:
        boxes: boxes of each picture; empty if the output for it is not finite.
        losses: loss of each picture, (B,); NaN if the output for it is not finite.
        finite: whether the output, the boxes and the scores of each picture are finite, (B,).
    """

    boxes: list[Boxes]
    losses: Tensor
    finite: Tensor


class Detector(Protocol):
    """A detector's own code around its core; see models.detectors.shell."""

    def losses(self, output: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]: ...

    def boxes(self, output: Tensor) -> list[Boxes]: ...


class Detection(Task):
    """The task of detectors.

    An output is the result of a detector's core, (B, numbers); an evaluation keeps its boxes and losses. A target is a
    list of B pictures' boxes and labels.

    Args:
        detector: computes losses and boxes from an output.
        classes: number of classes of objects.

    Raises:
        UserError: if pycocotools is not installed (exit 2).
    """

    score = MAP
    loss_name = "loss"
    output_name = "numbers"
    gap_name = "largest difference of a score"
    margin_words = "its best score was {}"

    def __init__(self, detector: Detector, classes: int) -> None:
        check_installed()
        self.detector, self.classes, self._said = detector, classes, False

    def loss(self, output: Tensor, target: Any, settings: LossSettings) -> Tensor:
        found = self.detector.losses(fine(output), target)
        return torch.stack([value.reshape(()) for value in found.values()]).sum()

    def right(self, output: Tensor, target: Any) -> Tensor:
        return output.new_zeros(())

    def training_score(self, right: int, seen: int) -> None:
        return None

    @torch.no_grad()
    def kept(self, output: Tensor, target: Any) -> Seen:
        """Keep boxes and losses only, as a core gives some hundred thousand numbers a picture."""
        finite = output.isfinite().flatten(1).all(1)
        losses = output.new_full((len(output),), math.nan, dtype=torch.float64)
        boxes: list[Boxes] = [{key: output.new_zeros(size) for key, size in _NONE.items()}] * len(output)
        for number in finite.nonzero().flatten().tolist():
            one = output[number : number + 1]  # one at a time: some detectors' losses depend on the other pictures
            losses[number] = self.loss(one, [_learned(target[number])], _NOTHING)
            boxes[number] = self.detector.boxes(fine(one))[0]
            finite[number] = all(bool(boxes[number][key].isfinite().all()) for key in ("boxes", "scores"))
        return Seen([{key: value.cpu() for key, value in one.items()} for one in boxes], losses.cpu(), finite.cpu())

    def measure(self, outputs: list[Seen], targets: list[Any]) -> Evaluation:
        seen = _together(outputs)
        truth = [{key: value.cpu() for key, value in one.items()} for target in targets for one in target]
        self._say_wrong(seen)
        judged = measured(seen.boxes, truth, self.classes)
        more = {"mAP50": 100 * judged.half, "recall": 100 * judged.recall}
        return Evaluation(100 * judged.mean, float(seen.losses.mean()), seen, more)

    def _say_wrong(self, seen: Seen) -> None:
        """Print once how many pictures have answers that cannot be boxes."""
        good = [bool(sound(one).all()) for one in seen.boxes]
        if (wrong := int((~seen.finite | ~torch.tensor(good)).sum())) and not self._said:
            self._said = True
            notice(
                f"in {wrong:,} of {len(good):,} pictures the network's numbers, boxes or scores are not finite, or a box "
                "ends before it begins: these boxes count as wrong answers"
            )

    def agreement(self, before: Seen, after: Seen) -> Agreement:
        """Compare the boxes of two networks.

        Two answers agree if each box with a score of 0.3 or more has a counterpart in the other answer. A counterpart
        has the same class, corners at most half a pixel away and a score that differs by at most 0.01.
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
        """Count pictures with a box that has no counterpart in the other answer. At least one answer must be finite."""
        comparable = before.finite | after.finite
        return sum(bool(comparable[number]) for number in self.agreement(before, after).differ)

    def numbers(self, output: Tensor) -> Tensor:
        return output


def sound(found: Boxes) -> Tensor:
    """Return of each box whether its numbers and its score are finite, and it ends where it begins or later: (n,)."""
    boxes, scores = found["boxes"], found["scores"]
    return scores.isfinite() & boxes.isfinite().all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1)


class _Settings:
    label_smoothing = 0.0


_NOTHING = _Settings()


def _learned(target: Boxes) -> Boxes:
    """Return the objects for the loss, without crowds."""
    keep = ~target["crowd"] if "crowd" in target else torch.ones_like(target["labels"], dtype=torch.bool)
    return {"boxes": target["boxes"][keep], "labels": target["labels"][keep]}


def _unlike(one: Boxes, other: Boxes) -> float | None:
    """Return the largest score difference between boxes and their counterparts; None if a box has no counterpart."""
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
