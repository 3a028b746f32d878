"""The loop and the proofs use only a task's interface: a task without classes works in both."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from engine.data.splits import Data, TensorSplit
from engine.tasks.base import Agreement, Evaluation, LossSettings, Task
from engine.tasks.score import Score
from engine.training.loop import fit
from tests.tools.training import RECIPE, config, pictures


class Brightness(Task):
    """A task whose network estimates the mean and spread of a picture; its score, R^2, is not known in training."""

    score = Score("r2", "", "")
    loss_name = "squared error"
    output_name = "estimates"
    gap_name = "largest difference of two estimates"
    margin_words = "{}"

    def loss(self, output: dict[str, Tensor], target: Tensor, settings: LossSettings) -> Tensor:
        return (self.numbers(output) - target).square().mean()

    def right(self, output: dict[str, Tensor], target: Tensor) -> Tensor:
        return torch.zeros(())

    def training_score(self, right: int, seen: int) -> None:
        return None

    def measure(self, outputs: list[dict[str, Tensor]], targets: list[Tensor]) -> Evaluation:
        found, wanted = torch.cat([self.numbers(o) for o in outputs]), torch.cat(targets)
        loss = (found - wanted).square().mean()
        return Evaluation(1 - (loss / wanted.var()).item(), loss.item(), found)

    def agreement(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> Agreement:
        off = (self.numbers(before) - self.numbers(after)).abs().amax(1)
        apart = {int(i): off[i].item() for i in (off > 0.01).nonzero().flatten()}
        return Agreement(len(off), len(off) - len(apart), off.max().item(), apart)

    def surely_moved(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> int:
        return len(self.agreement(before, after).differ)

    def numbers(self, output: dict[str, Tensor]) -> Tensor:
        return torch.stack([output["mean"], output["spread"]], 1)


class Estimates(nn.Module):
    """A network (B, 3, 6, 6) -> {"mean": (B,), "spread": (B,)}."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(108, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean, spread = self.linear(x.flatten(1)).unbind(1)
        return {"mean": mean, "spread": spread}


def estimated() -> Data:
    """Return pictures whose target is their own mean and spread, (N, 2)."""
    data = pictures()
    for part in (data.train, data.test):
        assert isinstance(part, TensorSplit)
        values = part.images.flatten(1).float() / 255
        part.labels = torch.stack([values.mean(1), values.std(1)], 1)
    return data


def test_a_task_without_classes_is_trained() -> None:
    torch.manual_seed(0)
    rows = fit(Estimates(), estimated(), config(replace(RECIPE, epochs=2, lr=0.001)), Brightness())
    assert [list(row) for row in rows] == 2 * [["epoch", "lr", "train_loss", "test_loss", "test_r2"]]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_the_proofs_compare_all_numbers_of_an_output() -> None:
    task, network, x = Brightness(), Estimates().double(), torch.ones(4, 3, 6, 6, dtype=torch.float64)
    before = network(x)
    moved = {**before, "spread": before["spread"] + torch.tensor([0.0, 1e-3, 0.0, 0.0])}
    assert task.same(before, before)
    assert not task.same(before, moved)
    assert (task.changed(before, before), task.changed(before, moved)) == (0, 1)
    assert task.is_finite(before)
    assert not task.is_finite({**before, "mean": before["mean"] / 0})
