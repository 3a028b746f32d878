"""Recorded and replayed steps equal normal steps. The recorder here is a Python stand-in that calls the step again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.tasks.classification import CLASSIFICATION
from engine.training import recorded
from engine.training.progress import FitConfig
from engine.training.recipe import Recipe
from engine.training.recorded import SETTLED, Recorded
from engine.training.step import Step

RECIPE = Recipe(2, 8, lr=0.1)


class Replays(Recorded):
    """A recorder that counts recordings and replays."""

    records = replays = 0

    def recorder(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:  # type: ignore[override]
        self.records += 1

        def replay() -> Tensor:
            self.replays += 1
            return run()

        return replay


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 10)
        self.frozen, self.calls = False, 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.head((y.detach() if self.frozen else y).relu().mean((2, 3)))


class Counts(Network):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def steps_of(kind: type[Step], model: Network, sizes: list[int], change: int | None = None) -> tuple[Any, list[Tensor]]:
    """Run the steps of an epoch; at `change` another epoch begins, in which the network is frozen."""
    optimizer, schedule = RECIPE.start(model, 30)
    step = kind(model, model, FitConfig(RECIPE), CLASSIFICATION, optimizer, lambda m: m.norm.weight.abs().sum() * 1e-3)
    source, found = torch.Generator().manual_seed(3), []
    for number, size in enumerate(sizes):
        if number == change:
            model.frozen = True
            step.start_epoch()
        images = torch.rand(size, 3, 6, 6, generator=source)
        found.append(step.gradients(images, torch.randint(10, (size,), generator=source)))
        step.update()
        schedule.step()
    return step, found


@pytest.mark.parametrize("change", [None, 8])
def test_all_steps_are_the_same_bit_for_bit(change: int | None) -> None:
    sizes = [8] * 6 + [5] + [8] * 8  # one batch of another size
    models = [Network(), Network()]
    _, wanted = steps_of(Step, models[0], sizes, change)
    step, found = steps_of(Replays, models[1], sizes, change)
    assert torch.equal(torch.stack(found), torch.stack(wanted))
    for one, other in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert step.records == (1 if change is None else 2)
    assert step.replays == len(sizes) - 1 - SETTLED - (0 if change is None else SETTLED)


def test_a_step_that_python_counts_is_never_recorded() -> None:
    step, _ = steps_of(Replays, Counts(), [8] * 10)
    assert step.records == 0


def test_what_cannot_be_recorded_goes_on_and_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Fails(Recorded):
        def recorder(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:  # type: ignore[override]
            raise RuntimeError("operation not permitted\nmore")

    _, wanted = steps_of(Step, Network(), [8] * 9)
    step, found = steps_of(Fails, Network(), [8] * 9)
    assert torch.equal(torch.stack(found), torch.stack(wanted))
    assert not step.is_recorded
    assert capsys.readouterr().err.count("cannot be recorded as a CUDA graph (operation not permitted)") == 1


def test_steps_are_recorded_on_a_gpu_where_nothing_looks_at_codes() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert recorded.kind(FitConfig(RECIPE), cpu) is Step
    assert recorded.kind(FitConfig(RECIPE), gpu) is Recorded
    assert recorded.kind(FitConfig(RECIPE, precision="exact"), gpu) is Step
