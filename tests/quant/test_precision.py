"""Training of quantized networks in each precision, and with one loop between layers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.numerics import precision
from engine.system.compiled import Unavailable
from engine.training.run_folder import RunFolder
from models.fused import library
from tests.conftest import assert_refused
from tests.tools.contract import FAST

HALF = precision.has_bf16(torch.device("cpu"))
LINES = {
    "w8a8": "quant.wqaq --Wbits 8 --Abits 8",
    "lsq": "quant.wqaq --quantizer lsq --Wbits 4 --Abits 4",
    "binary": "quant.wbwtab --W 2 --A 2",
    "int8": "quant.wqaq --q_type 0",
}


def learned() -> torch.Tensor:
    """Return what the weights of the trained file have gained on their parent's."""
    after, before = (
        torch.load(path, weights_only=True)["state_dict"] for path in ("out.pth", "models_save/nin_refine.pth")
    )
    kept = [name for name, value in after.items() if value.ndim == 4 and name in before]
    return torch.cat([(after[name] - before[name]).flatten() for name in kept])


def train(refined: Callable, line: str, *more: str) -> tuple[list[dict[str, str]], dict]:
    """Train and return the metrics of each epoch, and the run folder's record."""
    module, *words = line.split()
    done = refined(module, *words, "--refine", *FAST, "--epochs", "2", "--run_dir", "run", "--save", "out.pth", *more)
    assert done.code == 0, done.err
    with Path("run/metrics.csv").open() as file:
        return [*csv.DictReader(file)], json.loads(Path("run/flags.json").read_text())["resolved"]


@pytest.mark.parametrize(
    ("half", "apart"),
    [
        pytest.param(False, 1e-3, id="fp32 gradients"),
        pytest.param(True, 2e-2, id="bf16 gradients", marks=pytest.mark.skipif(not HALF, reason="no bf16")),
    ],
)
@pytest.mark.parametrize("kind", LINES)
def test_exact_trains_as_fp32(
    kind: str, half: bool, apart: float, refined: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of codes are integers in both, as long as they are below 2^24. Gradients use bf16 where the CPU has it."""
    monkeypatch.setattr(precision, "has_bf16", lambda _: half)
    plain, _ = train(refined, LINES[kind], "--precision", "fp32")
    wanted = learned()
    exact, said = train(refined, LINES[kind], "--precision", "exact", "--overwrite")
    assert said["precision"] == "exact"
    assert float(exact[0]["train_loss"]) == pytest.approx(float(plain[0]["train_loss"]), rel=apart)
    assert torch.cosine_similarity(learned(), wanted, dim=0) > 0.7


@pytest.mark.skipif(not HALF, reason="no bf16 in this processor")
@pytest.mark.parametrize("kind", LINES)
def test_bf16_trains_as_well(kind: str, refined: Callable) -> None:
    plain, _ = train(refined, LINES[kind], "--precision", "fp32")
    found, said = train(refined, LINES[kind], "--precision", "bf16", "--overwrite")
    assert said["precision"] == "bf16"
    assert found[0]["train_loss"] != plain[0]["train_loss"]
    assert float(found[-1]["train_loss"]) == pytest.approx(float(plain[-1]["train_loss"]), rel=0.1)


def test_bf16_that_would_be_emulated_is_refused(refined: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    done = refined("quant.wqaq", "--refine", *FAST, "--precision", "bf16")
    assert_refused(done, 2, "--precision bf16: this cpu has no bf16 arithmetic")


@pytest.mark.parametrize("kind", LINES)
def test_one_loop_between_layers_trains_as_well(kind: str, refined: Callable) -> None:
    try:
        library.loaded()
    except Unavailable as fault:
        pytest.skip(str(fault))
    plain, said = train(refined, LINES[kind], "--precision", "fp32")
    assert not said["fused"]
    fused, said = train(refined, LINES[kind], "--precision", "fp32", "--fused", "on", "--overwrite")
    assert said["fused"]
    assert float(fused[0]["train_loss"]) == pytest.approx(float(plain[0]["train_loss"]), rel=0.02)


def test_a_run_goes_on_in_the_loops_that_it_began_in(refined: Callable) -> None:
    """The run resumes bit for bit; without the loops sums would round in another order."""
    try:
        library.loaded()
    except Unavailable as fault:
        pytest.skip(str(fault))
    lsq = ("quant.wqaq", "--quantizer", "lsq", "--Wbits", "4", "--Abits", "4", "--refine", *FAST, "--precision", "fp32",
           "--epochs", "2", "--overwrite")  # fmt: skip
    straight = refined(*lsq, "--fused", "on", "--run_dir", "straight", "--save", "straight.pth")
    assert straight.code == 0, straight.err
    with pytest.MonkeyPatch.context() as patch:
        keep = RunFolder.keep
        patch.setattr(RunFolder, "keep", lambda *given: (keep(*given), (_ for _ in ()).throw(KeyboardInterrupt)))
        assert refined(*lsq, "--fused", "on", "--run_dir", "run", "--save", "out.pth").code == 130
    refused = refined(*lsq, "--run_dir", "run", "--save", "out.pth", "--resume")
    assert_refused(refused, 2, "fused")
    done = refined(*lsq, "--fused", "on", "--run_dir", "run", "--save", "out.pth", "--resume")
    assert done.code == 0, done.err
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in ("straight.pth", "out.pth"))
    assert all(torch.equal(one[key], other[key]) for key in one)
