"""quant.ptq in difficult cases: messages about a large loss, depthwise pairs, and activations that overflow."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models
import quant.ptq
import quant.wqaq
from engine.checkpoint import archive
from tests.conftest import assert_refused
from tests.tools.contents import raw
from tests.tools.residual import residual

Command = Callable[..., SimpleNamespace]
SOURCE = "models_save/nin_refine.pth"


@pytest.mark.parametrize("method", ["kl", "mse"])
def test_a_great_loss_is_said_with_its_remedy(refined: Command, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("quant.ptq", "--calibrate", method, "--q_type", 0, "--cpu", "--quiet")
    assert "warning" not in refined(*line).err
    monkeypatch.setattr(quant.ptq, "LOST", -101)
    done = refined(*line)
    assert done.code == 0
    (warning,) = [text for text in done.err.splitlines() if text.startswith("warning: calibration lost ")]
    assert ("try --calibrate mse, or train: " in warning) == (method == "kl")
    assert warning.endswith(f"train: python -m quant.wqaq --Wbits 8 --Abits 8 --q_type 0 --refine {SOURCE}")


def test_the_remedy_trains_what_was_asked_for(refined: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suggested command trains at these bits, on these pictures, with the network's code, for any file name."""
    own, arch = "my net.pth", "tests.tools.residual:residual"
    content = raw(Path(SOURCE))
    network = residual()
    archive.save(Path(own), content | {"arch": arch, "cfg": network.cfg, "state_dict": network.state_dict()})
    monkeypatch.setattr(quant.ptq, "LOST", -101)
    kept = ("--keep_float", "stem.conv", "--keep_float", "class*")
    line = (
        "--Wbits",
        2,
        "--Abits",
        4,
        "--no-per_channel",
        *kept,
        "--arch",
        arch,
        "--dataset",
        "digits",
        "--image_size",
        8,
    )
    done = refined("quant.ptq", "--model", own, *line, "--cpu", "--quiet")
    assert done.code == 0, done.err
    assert "take quant.wqaq --quantizer lsq below 5 bits, or train: " in done.err
    remedy = shlex.split(done.err.partition("train: python -m quant.wqaq ")[2].splitlines()[0])
    expected = [str(word) for word in (*line[:4], "--q_type", 1, *line[4:], "--refine", own)]
    assert remedy == expected
    assert quant.wqaq.parser().parse_args(remedy).Abits == 4


def test_the_sums_within_depthwise_pairs_are_clipped_by_mse(command: Command, workplace: Path) -> None:
    torch.manual_seed(0)
    torch.save(models.build("separable", [8] * 8).state_dict(), "pairs.pth")
    line = (
        "quant.ptq",
        "--arch",
        "separable",
        "--model",
        "pairs.pth",
        "--dataset",
        "digits",
        "--image_size",
        8,
        "--cpu",
    )
    files = {method: command(*line, "--calibrate", method, "--save", f"{method}.pth") for method in ("kl", "mse")}
    assert ("clipped by mse: block2.conv, block3.conv," in files["kl"].err, "clipped" in files["mse"].err) == (
        True,
        False,
    )
    kl, mse = (torch.load(f"{method}.pth", weights_only=True)["state_dict"] for method in files)
    for number in range(2, 9):
        key = f"block{number}.conv.input_quantizer.high"
        assert torch.equal(kl[key], mse[key]), key


@pytest.mark.parametrize("module", ["quant.ptq", "scripts.summary"])
def test_activations_that_overflow_are_no_bug(refined: Command, module: str) -> None:
    content = raw(Path(SOURCE))
    content["state_dict"]["block3.bn.weight"] *= 1e38
    archive.save(Path("big.pth"), content)
    if module == "quant.ptq":
        done = refined(module, "--model", "big.pth", "--cpu", "--save", "out.pth")
    else:
        done = refined(module, "--sensitivity", "big.pth", "--cpu")
    done.err = done.err.removeprefix("evaluating before\n")
    assert_refused(done, 3, "the network's activations are not finite at block")
    assert not Path("out.pth").exists()
