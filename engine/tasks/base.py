"""What a network is trained for, as the loop and the proofs see it: loss, score, counts and agreement.

A task has a file beside this one: classification.py. What scores are called: score.py. How a network is trained: engine/training.
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
from engine.system import precision, ranks
from engine.tasks.score import Score

Output = Any
"""What a network gives for a batch; only the task knows what it is made of."""
Target = Any
"""What a split gives beside the pictures of a batch."""
BOUND = 1e-10
"""Of the largest number of an output: float64 rounds some thousand times finer."""


class LossSettings(Protocol):
    """What a loss reads of a recipe. A task takes what it needs."""

    @property
    def label_smoothing(self) -> float: ...


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on a split.

    Attributes:
        score: in the unit of the task's score.
        loss: mean over the pictures.
        output: what was kept of what the network gave for all pictures, on the CPU; see `Task.agreement`.
        more: other numbers of the task, by their names.
    """

    score: float
    loss: float
    output: Output
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How far the answers of two networks are the same.

    Attributes:
        pictures, agree: how many there are, and on how many both networks give the same finite answer.
        gap: largest difference between their outputs; None where a number is not finite.
        differ: for each other picture, by its index, how far the first network's answer is from its second best;
            None where that is not finite.
    """

    pictures: int
    agree: int
    gap: float | None
    differ: dict[int, float | None]


class Task(ABC):
    """Loss, score, counts and agreement of one kind of answer.

    Attributes:
        score: the name and unit of the score.
        loss_name: of the loss, for the axis of a picture.
        output_name: of the numbers in an output ("logits"), for the faults of a proof.
        gap_name, margin_words: how `Agreement.gap` and one value of `Agreement.differ` are worded; {} is the value.
    """

    score: Score
    loss_name: str
    output_name: str
    gap_name: str
    margin_words: str

    @abstractmethod
    def loss(self, output: Output, target: Target, settings: LossSettings) -> Tensor:
        """The mean loss of a training batch, in fp32, or as finely as the output is: a tensor of no dimension that has a gradient."""

    @abstractmethod
    def right(self, output: Output, target: Target) -> Tensor:
        """The number of right answers in a training batch.

        It has no dimension and stays on the device: the loop fetches it together with the loss.
        """

    @abstractmethod
    def training_score(self, right: int, seen: int) -> float | None:
        """The score of an epoch's training batches, from sums of `right` and of pictures; None if these give none."""

    def kept(self, output: Output, target: Target) -> Output:
        """What an evaluation keeps of a batch: the output, or less where that is much. `measure` and `agreement` get it."""
        return output

    @abstractmethod
    def measure(self, outputs: list[Output], targets: list[Target]) -> Evaluation:
        """The score of a split, from what was kept of the output of each of its batches, and their targets."""

    @abstractmethod
    def agreement(self, before: Output, after: Output) -> Agreement:
        """Compare the answers of two networks to the same pictures. An answer that is not finite agrees with none."""

    @abstractmethod
    def surely_moved(self, before: Output, after: Output) -> int:
        """Pictures whose answer differs by more than fp32 sums in another order can explain."""

    @abstractmethod
    def numbers(self, output: Output) -> Tensor:
        """All numbers of an output as one tensor, (B, ...), for the proofs that two networks compute the same."""

    def same(self, expected: Output, found: Output) -> bool:
        """Whether float64 outputs are equal within 1e-10 of the largest finite number; what overflows, in both."""
        wanted = self.numbers(expected)
        largest = wanted[wanted.isfinite()].abs().amax().item() if wanted.isfinite().any() else 0.0
        return torch.allclose(self.numbers(found), wanted, rtol=0, atol=BOUND * largest, equal_nan=True)

    def changed(self, expected: Output, found: Output) -> int:
        """Pictures with a number that is off by more than 1e-10 of the largest; all numbers have to be finite."""
        wanted = self.numbers(expected)
        off = (wanted - self.numbers(found)).abs().flatten(1).amax(1)
        return int((off > BOUND * wanted.abs().max()).sum())

    def is_finite(self, output: Output) -> bool:
        return bool(self.numbers(output).isfinite().all())

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, split: Split, batch: int = 500, after_batch: Callable[[], None] | None = None
    ) -> Evaluation:
        """Evaluate a network in eval mode, in its own arithmetic (fp32 or fp64), products of codes exactly; its training mode
        is put back.
        """
        was_training = model.training
        model.eval()
        dtype = _dtype([*model.parameters(), *model.buffers()])
        outputs, targets = [], []
        with precision.computing("exact"):
            mine = None if ranks.count() == 1 else torch.arange(len(split))[ranks.share(len(split))]
            for images, target in split.batches(batch, mine):
                outputs.append(self.kept(model(images.to(dtype)), target))
                targets.append(target)
                if after_batch:
                    after_batch()
        model.train(was_training)
        if ranks.count() > 1:
            every = ranks.gathered(tree_map(_to_cpu, (outputs, targets)))
            outputs, targets = ([value for part in every for value in part[n]] for n in (0, 1))
        return self.measure(outputs, targets)


def fine(output: Tensor) -> Tensor:
    """Numbers of a network in fp32, or as finely as they are."""
    return output if output.dtype == torch.float64 else output.float()


def finite(value: Tensor) -> float | None:
    """A number, or None for what JSON has no word for."""
    number = float(value)
    return number if math.isfinite(number) else None


def _to_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
