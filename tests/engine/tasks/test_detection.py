"""The task of detectors: losses and scores come from the detector's own code, and equal answers are equal boxes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from engine.data.info import DataInfo
from engine.errors import UserError
from engine.tasks.of import task_of

pytest.importorskip("pycocotools")

from engine.tasks.base import Evaluation
from engine.tasks.detection import Boxes, Detection, Seen

SCENES = DataInfo("scenes", "digit scenes (composed)", 10, 32, (0.5,) * 3, (0.25,) * 3, task="detection")
DIGITS = DataInfo("digits", "digits", 10, 32, (0.5,) * 3, (0.25,) * 3)


class Plain:
    """A shell whose numbers are boxes: for each picture rows of x1, y1, x2, y2, class, score."""

    def losses(self, output: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]:
        counts = torch.tensor([float(len(one["labels"])) for one in targets])
        return {"size": output.square().mean(), "count": counts.mean().reshape(1)}

    def boxes(self, output: Tensor) -> list[Boxes]:
        rows = output.reshape(len(output), -1, 6)
        return [{"boxes": one[:, :4], "labels": one[:, 4].long(), "scores": one[:, 5]} for one in rows]


TASK = Detection(Plain(), 10)
ONE = [10.0, 10, 20, 30, 3, 0.9]
OTHER = [50.0, 40, 70, 60, 5, 0.8]


def target(*rows: list[float], crowd: bool = False) -> Boxes:
    held = torch.tensor(rows).reshape(-1, 6)
    return {"boxes": held[:, :4], "labels": held[:, 4].long(), "crowd": torch.full((len(rows),), crowd)}


def numbers(*pictures: list[list[float]]) -> Tensor:
    return torch.tensor(pictures).flatten(1)


def test_the_loss_is_the_sum_of_the_detectors() -> None:
    output = numbers([ONE, OTHER]).requires_grad_()
    loss = TASK.loss(output, [target(ONE, OTHER)], None)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(output.square().mean().item() + 2)
    assert loss.shape == ()
    loss.backward()
    assert TASK.training_score(0, 5) is None


def test_measured_over_batches() -> None:
    targets = [[target(ONE, OTHER)], [target(ONE, OTHER), target(ONE, OTHER)]]
    outputs = [TASK.kept(numbers(*[[ONE, OTHER]] * len(each)), each) for each in targets]
    found = TASK.measure(outputs, targets)
    assert (found.score, dict(found.more)) == (
        pytest.approx(100),
        {"mAP50": pytest.approx(100), "recall": pytest.approx(100)},
    )
    assert len(found.output.boxes) == 3
    assert found.loss == pytest.approx(TASK.loss(numbers([ONE, OTHER]), targets[0], None).item())  # type: ignore[arg-type]
    half = TASK.measure(outputs[:1], [[target(ONE, [0.0, 0, 5, 5, 5, 1])]])
    assert half.score == pytest.approx(50)  # one of two classes


def judged(output: Tensor, targets: list[Boxes]) -> Evaluation:
    return TASK.measure([TASK.kept(output, targets)], [targets])


def seen(*pictures: list[list[float]]) -> Seen:
    return TASK.kept(numbers(*pictures), [target()] * len(pictures))


def test_a_crowd_is_no_object_of_the_loss() -> None:
    beside = {key: torch.cat([target(ONE)[key], target(OTHER, crowd=True)[key]]) for key in target(ONE)}
    one, other = judged(numbers([ONE]), [target(ONE)]), judged(numbers([ONE]), [beside])
    assert (one.loss, one.score) == (pytest.approx(other.loss), pytest.approx(other.score))


def test_numbers_that_are_none_give_no_score() -> None:
    found = judged(numbers([[float("nan")] * 6]), [target(ONE)])
    assert found.score == 0
    assert found.loss != found.loss


@pytest.mark.parametrize(
    ("after", "agree"),
    [
        ([ONE, OTHER], 1),
        ([OTHER, ONE], 1),
        ([[10.4, 10, 20, 30, 3, 0.905], OTHER], 1),
        ([[10.6, 10, 20, 30, 3, 0.9], OTHER], 0),
        ([[*ONE[:4], 4, 0.9], OTHER], 0),
        ([[*ONE[:5], 0.88], OTHER], 0),
        ([ONE, [*OTHER[:5], 0.2]], 0),
    ],
)
def test_equal_boxes(after: list[list[float]], agree: int) -> None:
    for one, other in ((seen([ONE, OTHER]), seen(after)), (seen(after), seen([ONE, OTHER]))):
        found = TASK.agreement(one, other)
        assert (found.pictures, found.agree, list(found.differ)) == (1, agree, [] if agree else [0])
        assert TASK.surely_moved(one, other) == 1 - agree


def test_the_gap_is_that_of_scores() -> None:
    found = TASK.agreement(seen([ONE, OTHER]), seen([[*ONE[:5], 0.905], OTHER]))
    assert found.gap == pytest.approx(0.005, abs=1e-6)


def test_what_is_not_shown_may_differ_and_no_number_agrees_with_none() -> None:
    weak, weaker = [*OTHER[:5], 0.2], [1.0, 2, 3, 4, 0, 0.1]
    assert TASK.agreement(seen([ONE, weak]), seen([ONE, weaker])).agree == 1
    lost = seen([[float("nan")] * 6, ONE])
    found = TASK.agreement(lost, lost)
    assert (found.agree, found.differ, found.gap) == (0, {0: None}, None)


class Spoils(Plain):
    """A shell that makes non-finite boxes or scores of finite numbers."""

    def __init__(self, part: str, value: float) -> None:
        self.part, self.value = part, value

    def boxes(self, output: Tensor) -> list[Boxes]:
        return [{**one, self.part: one[self.part] * self.value} for one in super().boxes(output)]


@pytest.mark.parametrize("part", ["boxes", "scores"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_boxes_and_scores_that_are_not_finite_never_hit_and_never_agree(
    part: str, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    task, targets = Detection(Spoils(part, value), 10), [target(ONE), target(ONE)]
    kept = task.kept(numbers([ONE], [ONE]), targets)
    for _ in range(2):
        found = task.measure([kept], [targets])
        assert (found.score, found.more["recall"]) == (0, 0)
        assert found.loss == pytest.approx(judged(numbers([ONE]), [target(ONE)]).loss)  # its numbers are sound
    assert capsys.readouterr().err.count("notice: in 2 of 2 pictures") == 1
    other = seen([ONE], [ONE])
    for one, two in ((kept, kept), (kept, other), (other, kept)):
        assert (task.agreement(one, two).agree, task.agreement(one, two).gap) == (0, None)
    assert task.surely_moved(kept, other) == 2
    assert task.surely_moved(kept, kept) == 0  # the proof of surgery compares a network with itself


def test_classifiers_and_sets_of_boxes_do_not_meet() -> None:
    class Detector(nn.Module):
        class captured:
            detector = Plain()

    assert isinstance(task_of(Detector(), SCENES), Detection)
    assert task_of(nn.Linear(1, 1), DIGITS).score.name == "accuracy"
    with pytest.raises(UserError, match="has boxes, but nin is not a detector") as fault:
        task_of(nn.Linear(1, 1), SCENES, "nin")
    assert "--core" in fault.value.hint
    with pytest.raises(UserError, match="digits has no boxes"):
        task_of(Detector(), DIGITS)
