"""Classification: right answers, equal answers, and answers that are equal up to rounding."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from engine.tasks.classification import CLASSIFICATION
from engine.training.recipe import Recipe

LOGITS = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 2.0], [0.0, 0.5, 4.0], [2.0, 1.0, 1.5]])
LABELS = torch.tensor([1, 0, 2, 1])


def test_a_training_batch_is_counted_and_weighed() -> None:
    recipe = Recipe(epochs=1, batch_size=4, label_smoothing=0.3)
    logits = LOGITS.clone().requires_grad_()
    right = CLASSIFICATION.right(logits, LABELS)
    assert (right.item(), right.shape, right.requires_grad) == (3, (), False)
    assert CLASSIFICATION.training_score(right.item(), 4) == 75
    wanted = 0.7 * torch.eye(3)[LABELS] + 0.1
    expected = -(wanted * LOGITS.log_softmax(1)).sum(1).mean()
    loss = CLASSIFICATION.loss(logits, LABELS, recipe)
    assert loss.requires_grad
    assert math.isclose(loss.item(), expected.item(), rel_tol=1e-6)


def test_the_loss_is_computed_in_fp32() -> None:
    loss = CLASSIFICATION.loss(LOGITS.bfloat16(), LABELS, Recipe(epochs=1, batch_size=4))
    assert loss.dtype == torch.float32
    assert loss == CLASSIFICATION.loss(LOGITS.bfloat16().float(), LABELS, Recipe(epochs=1, batch_size=4))


def test_batches_of_a_split_are_measured_together() -> None:
    whole = CLASSIFICATION.measure([LOGITS], [LABELS])
    parts = CLASSIFICATION.measure([LOGITS[:3], LOGITS[3:]], [LABELS[:3], LABELS[3:]])
    assert (whole.score, whole.loss) == (parts.score, parts.loss)
    assert whole.score == 75
    assert torch.equal(whole.output, LOGITS)


def test_agreement_counts_numbers_alone() -> None:
    one = torch.tensor([[1.0, 2.0], [3.0, 1.0], [float("nan"), 0.0], [1.0, float("inf")]])
    found = CLASSIFICATION.agreement(one, one)
    assert (found.pictures, found.agree, found.gap, list(found.differ)) == (4, 2, None, [2, 3])
    json.dumps(found.differ, allow_nan=False)
    other = CLASSIFICATION.agreement(one[:2], one[:2].flip(1))
    assert (other.agree, other.gap, other.differ) == (0, 2.0, {0: 1.0, 1: 2.0})


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_leaves_the_training_mode_also_after_an_error(training: bool) -> None:
    class Damaged:
        def __len__(self) -> int:
            return 2

        def batches(self, *_: object) -> Iterator[tuple[Tensor, Tensor]]:
            yield torch.zeros(1, 3), LABELS[:1]
            raise OSError("a damaged picture")

    network = nn.Linear(3, 3).train(training)
    with pytest.raises(OSError, match="a damaged picture"):
        CLASSIFICATION.evaluate(network, Damaged())
    assert network.training == training


def test_of_one_class_no_answer_moves() -> None:
    assert CLASSIFICATION.surely_moved(torch.ones(3, 1), torch.zeros(3, 1)) == 0


def test_an_answer_moves_surely_where_its_lead_was_no_rounding() -> None:
    before = torch.tensor([[10.0, 0.0], [1.0, 1.0 + 2e-4], [1.0, 1.0 + 5e-5]])
    after = before.flip(1)
    assert CLASSIFICATION.surely_moved(before, after) == 2  # the third leads by less than 1e-5 of 10
    assert CLASSIFICATION.surely_moved(before, before) == 0


def test_a_picture_is_changed_by_one_number_beyond_rounding() -> None:
    before = torch.tensor([[100.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dtype=torch.float64)
    after = before + torch.tensor([[0.0, 0.0], [0.9e-8, 0.0], [0.0, 1.1e-8]], dtype=torch.float64)
    assert CLASSIFICATION.changed(before, after) == 1
    assert CLASSIFICATION.changed(before, before) == 0


@pytest.mark.parametrize(
    ("masked", "sliced", "equal"),
    [
        ([1.0, math.nan], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, math.inf], False),
        ([1.0, math.inf], [1.0, math.inf], True),
        ([1.0, math.nan], [1.0 + 1e-11, math.nan], True),
        ([1.0, 2.0], [1.0 + 3e-10, 2.0], False),
    ],
)
def test_what_overflows_is_no_proof(masked: list[float], sliced: list[float], equal: bool) -> None:
    pair = (torch.tensor(logits, dtype=torch.float64) for logits in (masked, sliced))
    assert CLASSIFICATION.same(*pair) is equal
