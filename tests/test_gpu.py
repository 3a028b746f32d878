"""The chain on a GPU, with its files evaluated on the CPU. These tests are skipped without a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from engine.data import catalogue
from engine.numerics.precision import Precision
from engine.tasks.classification import CLASSIFICATION
from engine.training.progress import FitConfig
from engine.training.recipe import Recipe
from engine.training.recorded import Recorded
from engine.training.step import Step
from models.fused.view import chosen
from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.surgery.narrow import masked, narrowed
from prune import plan as planning
from prune.widths import Subject
from quant.hooks import hooks
from scripts.speed.variants import SPECS, network
from tests.tools.examined import smallest

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SHORT = ("--dataset", "digits", "--image_size", "8", "--epochs", "1", "--quiet", "--device", "cuda")
NARROW = ("--cfg", "16,16,16,16,16,16,16,16")
FAMILIES = (
    ("quant.wqaq", "--Wbits", "8", "--Abits", "8"),
    ("quant.wqaq", "--Wbits", "4", "--Abits", "4", "--quantizer", "lsq"),
    ("quant.wqaq", "--q_type", "0", "--bn_fold", "1"),
    ("quant.wqaq", "--q_type", "1", "--bn_fold", "0"),
    ("quant.wbwtab", "--W", "2", "--A", "2"),
    ("quant.wbwtab", "--W", "3", "--A", "2"),
)


@pytest.fixture
def pruned(command: Callable[..., SimpleNamespace]) -> str:
    assert command("prune.train", "-sr", "--s", "0.001", *NARROW, *SHORT).code == 0
    found = command("prune.normal_regular", "--percent", "0.3", "--device", "cuda")
    assert found.code == 0, found.err
    return found.path


@pytest.mark.parametrize("words", FAMILIES, ids=" ".join)
def test_a_network_trained_there_is_the_same_network_here(
    words: tuple[str, ...], pruned: str, command: Callable[..., SimpleNamespace]
) -> None:
    quantized = command(*words, "--refine", pruned, *SHORT)
    assert quantized.code == 0, quantized.err
    merged = command("bn_merge.__main__", "--model", quantized.path, "--device", "cuda", "--json")
    assert merged.code == 0, merged.err
    assert json.loads(merged.out)["agree"] >= 359  # fp32: sums in another order
    right = []
    for device in ("cuda", "cpu"):
        judged = command("quant.wqaq", "--evaluate", quantized.path, "--device", device, "--json")
        assert judged.code == 0, judged.err
        right.append(json.loads(judged.out)["accuracy"] * 3.6)
    assert abs(right[0] - right[1]) <= 1.01  # of 360 pictures


def test_calibration_there(pruned: str, command: Callable[..., SimpleNamespace]) -> None:
    found = command("quant.ptq", "--model", pruned, "--calibrate", "kl", "--device", "cuda", "--bias_correction")
    assert found.code == 0, found.err


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_goes_on(precision: str, command: Callable[..., SimpleNamespace]) -> None:
    line = ("prune.train", *NARROW, *SHORT, "--precision", precision, "--run_dir", "run")
    whole = command(*line, "--epochs", "2")
    again = command(*line, "--epochs", "2", "--resume")
    assert (whole.code, again.code) == (0, 0), again.err
    assert "already complete" in again.err


@pytest.mark.parametrize(
    "arch",
    ["nin", "nin_gc", "torchvision:resnet18", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5",
     "tests.tools.cases:prelu", "tests.tools.cases:SqueezeExcite", "tests.tools.cases:Residual"],
)  # fmt: skip
def test_captured_and_narrowed_there(arch: str) -> None:
    """Captured equals eager bit for bit; masked equals narrowed in float64."""
    model, side = smallest(arch)
    model = model.cuda()
    form = capture(model, (3, side, side), arch)
    pictures = torch.randn(4, 3, side, side, device="cuda")
    with torch.no_grad():
        assert torch.equal(form(pictures), model(pictures))
    model, form = model.double(), form.double()
    found = channels(form)
    chosen = planning.plan(Subject(model, form, found, arch), 0.5)
    small = narrowed(model, form, found, chosen.dropped, arch)
    with torch.no_grad():
        wanted = masked(form, found, chosen.dropped)(pictures.double())
        assert (small(pictures.double()) - wanted).abs().max() <= 1e-10 * wanted.abs().max()


@pytest.mark.parametrize("variant", [*SPECS])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fused", [False, True])
def test_recorded_steps_are_the_same_steps(
    variant: str, precision: Precision, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All losses are equal, over the start of an epoch and batches of another size."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    found, made = [], list[Step]()
    for kind in (Step, Recorded):
        torch.manual_seed(1)
        model = network("nin", 32, variant, cfg=[32] * 8).cuda().to(memory_format=torch.channels_last)
        recipe = Recipe(2, 16, lr=0.001)
        optimizer, schedule = recipe.start(model, 30)
        compute = (chosen(model, "on", 1, 1) if fused else None) or model
        asked = hooks(model, 2)
        step = kind(
            compute, model, FitConfig(recipe, precision=precision, codes=variant != "float"), CLASSIFICATION,
            optimizer, None, asked.get("constrain"),
        )  # fmt: skip
        pictures = torch.Generator("cuda").manual_seed(2)
        rows = []
        for number in range(24):
            if number in (0, 12):
                asked["on_epoch"](model, number // 12)
                step.start_epoch()
            size = 9 if number == 10 else 16
            images = torch.rand(size, 3, 32, 32, device="cuda", generator=pictures).to(
                memory_format=torch.channels_last
            )
            labels = torch.randint(10, (size,), device="cuda", generator=pictures)
            rows.append(step.gradients(images, labels)[0])
            step.update()
            schedule.step()
        found.append(torch.stack(rows).cpu())
        made.append(step)
    assert cast(Recorded, made[1]).is_recorded
    assert found[0].isfinite().all()
    assert len(set(found[0].tolist())) > 20
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=0)


def test_a_step_that_waits_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    class Waits(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x.flatten(1))
            return y if y.sum().item() > 1e9 else y * 1

    model = Waits(3 * 8 * 8, 10).cuda()
    recipe = Recipe(1, 4)
    step = Recorded(model, model, FitConfig(recipe), CLASSIFICATION, recipe.start(model, 9)[0])
    for _ in range(9):
        images = torch.rand(4, 3, 8, 8, device="cuda")
        assert step.gradients(images, torch.arange(4, device="cuda")).isfinite().all()
        step.update()
    assert not step.is_recorded
    assert capsys.readouterr().err.count("cannot be recorded") == 1


def test_pictures_live_there() -> None:
    data = catalogue.load("digits", device=torch.device("cuda"), image_size=8)
    images, labels = next(data.train.training_batches(4, seed=1, epoch=0))
    here = catalogue.load("digits", image_size=8)
    assert images.is_cuda
    assert labels.is_cuda
    expected, _ = next(here.train.training_batches(4, seed=1, epoch=0))
    assert torch.allclose(images.cpu(), expected, rtol=0, atol=1e-6)
