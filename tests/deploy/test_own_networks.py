"""Networks of user code, and networks that read grey pictures: once packed, they run from the file alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from deploy import packed
from deploy.reference.run import run
from engine.errors import USAGE
from quant import restore
from tests.conftest import SMALL, assert_refused
from tests.tools.contents import raw

Command = Callable[..., SimpleNamespace]
PACK, RUN = "deploy.pack", "deploy.run"

MINE = """
from torch import nn

class Double(nn.Module):
    def forward(self, x):
        return x + x.flip(0) * 0 if self.training else x * 2

def net(classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Double(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(192, classes),
    )
"""


@pytest.fixture
def mine(workplace: Path, command: Command) -> str:
    """Return the trained file of a network in mine.py."""
    (workplace / "mine.py").write_text(MINE)
    done = command("prune.train", "--arch", "mine.py:net", *SMALL)
    assert done.code == 0, done.err
    return done.path


def forget() -> None:
    """Remove the code from the disk and from memory."""
    Path("mine.py").unlink()
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("executor", ["torch", "reference"])
def test_own_code_is_needed_for_packing_alone(executor: str, mine: str, command: Command) -> None:
    done = command(PACK, "--model", mine, "--arch", "mine.py:net")
    assert done.code == 0, done.err
    forget()
    result = command(RUN, "--model", done.path, "--evaluate", "--dataset", "digits", "--executor", executor, "--json")
    assert result.code == 0, result.err
    known = raw(mine)
    assert json.loads(result.out)["accuracy"] == pytest.approx(known["best_acc"], abs=100 / 360 + 1e-9)
    assert json.loads(result.out)["loss"] == pytest.approx(known["metrics"]["loss"], rel=1e-3)
    assert "mine.py:net, digits" in command(PACK, "--inspect", done.path).out
    assert "mine" not in sys.modules


def test_own_code_is_needed_for_packing(mine: str, command: Command) -> None:
    refused = command(PACK, "--model", mine)
    assert_refused(refused, USAGE, "mine.py:net")
    assert "--arch mine.py:net" in refused.err
    forget()
    assert_refused(command(PACK, "--model", mine, "--arch", "mine.py:net"), USAGE, "mine.py")
    assert not list(Path().rglob("*.safetensors"))


def test_a_packed_file_becomes_a_model_without_the_code(mine: str, command: Command) -> None:
    onnx = pytest.importorskip("onnx")
    path = command(PACK, "--model", mine, "--arch", "mine.py:net").path
    forget()
    done = command("deploy.onnx", "--model", path)
    assert done.code == 0, done.err
    told = {each.key: each.value for each in onnx.load(done.path).metadata_props}
    assert told["arch"] == "mine.py:net"


GRAY = "tests.tools.gray:small"
TRAINED = {
    "float": ("prune.train", "--arch", GRAY, *SMALL),
    "binary": ("quant.wbwtab", "--W", "2", "--A", "2", "--arch", GRAY, *SMALL),
    "int8": ("quant.wqaq", "--q_type", "0", "--arch", GRAY, *SMALL),
}


@pytest.mark.parametrize("kind", ["float", "binary", pytest.param("int8", marks=pytest.mark.slow)])
def test_gray_networks_are_shown_gray_pictures(kind: str, command: Command) -> None:
    made = command(*TRAINED[kind])
    assert made.code == 0, made.err
    ends = "float" if kind == "binary" else "int8"  # signs flip if the first layer is rounded
    path = command(PACK, "--model", made.path, "--arch", GRAY, "--ends", ends).path
    held, known = packed.open(Path(path)), raw(made.path)
    assert held.program.picture == (1, 8, 8)
    assert (held.program.mean, held.program.std) == (tuple(known["dataset"]["mean"]), tuple(known["dataset"]["std"]))
    for executor in ("torch", "reference"):
        told = command(RUN, "--model", path, "--evaluate", "--executor", executor, "--json", "--dataset", "digits")
        found = json.loads(told.out)
        assert found["accuracy"] == pytest.approx(known["best_acc"], abs=100 / 360 + 1e-9)
        assert found["loss"] == pytest.approx(known["metrics"]["loss"], rel=0.01)

    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(colours).save("colours.png")
    found = json.loads(command(RUN, "--model", path, "colours.png", "--top", "10", "--json").out)
    gray = torch.from_numpy(colours @ np.array([0.299, 0.587, 0.114]) / 255)[None, None].float()
    x = (gray - held.program.mean[0]) / held.program.std[0]
    expected = torch.softmax(run(held.program, x), 1)[0]
    assert {one["name"]: one["probability"] for one in found["pictures"][0]["classes"]} == pytest.approx(
        {f"class {n}": share.item() for n, share in enumerate(expected)}, abs=0.01
    )
    with torch.no_grad():
        own = torch.softmax(restore.open(Path(made.path), GRAY).network.eval()(x), 1)[0]
    assert (own - expected).abs().max() < 0.03
