"""The interface of a task, for the training loop and the proofs: loss, score, counts and agreement.

classification.py and detection.py have the tasks, score.py the names of scores, and engine/training the training.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from engine.data.info import Split
from engine.numerics import precision
from engine.numerics.batches import ON_CPU
from engine.numerics.evaluator import evaluator
from engine.numerics.reuse import reusing
from engine.system import ranks
from engine.tasks.score import Score

Output = Any
"""A network's result for a batch; only the task knows its structure."""
Target = Any
"""A split's labels or boxes for a batch."""
BOUND = 1e-10
"""Tolerance relative to the largest number of an output; float64 rounding is some thousand times finer."""


class LossSettings(Protocol):
    """The settings of a recipe that a loss may read."""

    @property
    def label_smoothing(self) -> float: ...


@dataclass(frozen=True)
class Evaluation:
    """The measured quality of a network on a split.

    Attributes:
        score: in the unit of the task's score.
        loss: mean loss over the pictures.
        output: the kept outputs for all pictures, on the CPU; see `Task.kept` and `Task.agreement`.
        more: the task's further figures, by name.
    """

    score: float
    loss: float
    output: Output
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """The agreement of two networks' answers.

    Attributes:
        pictures: number of pictures.
        agree: number of pictures with the same finite answer from both networks.
        gap: largest difference between their outputs; None if a number is not finite.
        differ: for each other picture, by index, the margin of the first network's answer over its second best; None if
            that is not finite.
    """

    pictures: int
    agree: int
    gap: float | None
    differ: dict[int, float | None]


class Task(ABC):
    """Loss, score, counts and agreement of one kind of answer.

    Attributes:
        score: the name and unit of the score.
        loss_name: name of the loss, for the axis of a plot.
        output_name: name of the numbers in an output ("logits"), for the errors of a proof.
        gap_name: words for `Agreement.gap`.
        margin_words: words for a value of `Agreement.differ`, which replaces {}.
    """

    score: Score
    loss_name: str
    output_name: str
    gap_name: str
    margin_words: str

    @abstractmethod
    def loss(self, output: Output, target: Target, settings: LossSettings) -> Tensor:
        """Return the mean loss of a training batch: a scalar with a gradient, in fp32, or in fp64 for fp64 outputs."""

    @abstractmethod
    def right(self, output: Output, target: Target) -> Tensor:
        """Return the number of right answers in a training batch.

        It is a scalar tensor on the device; the loop fetches it together with the loss.
        """

    @abstractmethod
    def training_score(self, right: int, seen: int) -> float | None:
        """Return an epoch's training score from its numbers of right answers and pictures; None if there is none."""

    def kept(self, output: Output, target: Target) -> Output:
        """Return what an evaluation keeps of a batch's output: all, or less if it is large."""
        return output

    @abstractmethod
    def measure(self, outputs: list[Output], targets: list[Target]) -> Evaluation:
        """Return the evaluation of a split from its batches' kept outputs and their targets."""

    @abstractmethod
    def agreement(self, before: Output, after: Output) -> Agreement:
        """Compare the answers of two networks to the same pictures. Non-finite answers never agree."""

    @abstractmethod
    def surely_moved(self, before: Output, after: Output) -> int:
        """Return the number of pictures whose answers differ by more than a changed order of fp32 sums can explain."""

    @abstractmethod
    def numbers(self, output: Output) -> Tensor:
        """Return all numbers of an output as one tensor, (B, ...), for the proofs that two networks are equal."""

    def same(self, expected: Output, found: Output) -> bool:
        """Return whether float64 outputs are equal within 1e-10 of the largest finite number; both overflow alike."""
        wanted = self.numbers(expected)
        largest = wanted[wanted.isfinite()].abs().amax().item() if wanted.isfinite().any() else 0.0
        return torch.allclose(self.numbers(found), wanted, rtol=0, atol=BOUND * largest, equal_nan=True)

    def changed(self, expected: Output, found: Output) -> int:
        """Return the number of pictures with a number off by more than 1e-10 of the largest; all must be finite."""
        wanted = self.numbers(expected)
        off = (wanted - self.numbers(found)).abs().flatten(1).amax(1)
        return int((off > BOUND * wanted.abs().max()).sum())

    def is_finite(self, output: Output) -> bool:
        return bool(self.numbers(output).isfinite().all())

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, split: Split, batch: int = ON_CPU, after_batch: Callable[[], None] | None = None
    ) -> Evaluation:
        """Evaluate a network in eval mode, in its own precision (fp32 or fp64) with exact products of codes.

        Its training mode is restored afterwards, also after an error.
        """
        was_training = model.training
        model.eval()
        dtype = _dtype([*model.parameters(), *model.buffers()])
        outputs, targets = [], []
        try:
            compute = evaluator(model, len(split), batch)
            with precision.computing("exact"), reusing():
                mine = None if ranks.count() == 1 else torch.arange(len(split))[ranks.share(len(split))]
                for images, target in split.batches(batch, mine):
                    outputs.append(self.kept(compute(images.to(dtype)), target))
                    targets.append(target)
                    if after_batch:
                        after_batch()
        finally:
            model.train(was_training)
        if ranks.count() > 1:
            every = ranks.gathered(tree_map(_to_cpu, (outputs, targets)))
            outputs, targets = ([value for part in every for value in part[n]] for n in (0, 1))
        return self.measure(outputs, targets)


def fine(output: Tensor) -> Tensor:
    """Return numbers of a network in fp32, or in fp64 if they are in fp64."""
    return output if output.dtype == torch.float64 else output.float()


def finite(value: Tensor) -> float | None:
    """Return a number, or None if it is not finite, as JSON has only finite numbers."""
    number = float(value)
    return number if math.isfinite(number) else None


def _to_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
