"""Old files of a network that declares its channels: they are opened, evaluated, merged, pruned and refined as before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.errors import BAD_CHECKPOINT
from models import check
from quant import restore
from tests.conftest import SMALL, assert_refused
from tests.golden.make import HERE, pictures
from tests.tools.contents import raw

FOLDER = HERE / "declared"
NAMES = sorted(path.stem for path in FOLDER.glob("*.pth"))
OWN = ("--arch", "my_net:residual", "--cpu")
NOTICE = "notice: my_net:residual declares channel groups, which are ignored: the groups are found in its graph\n"

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def files(workplace: Path) -> Path:
    """Return the working folder with the network and its files."""
    shutil.copytree(FOLDER, workplace, dirs_exist_ok=True)
    return workplace


def same_tensors(one: Path, other: Path) -> bool:
    a, b = raw(one)["state_dict"], raw(other)["state_dict"]
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def test_every_stage_is_here_and_small() -> None:
    quantized = ("w4a4", "wbab", "int8_fold0", "int8_fold1", "ptq", "w4a4_merged", "wbab_merged", "int8_fold1_merged")
    assert sorted(("float", "preprune", "pruned", "refined", *quantized)) == NAMES
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


SLOW = ("preprune", "refined", "w4a4", "int8_fold0", "int8_fold1_merged")  # in between are fast tests


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES])
def test_it_is_judged_as_then(name: str, files: Path, command: Command) -> None:
    accuracy = raw(files / f"{name}.pth")["best_acc"]
    late = "merged" in name or name in ("w4a4", "wbab", "int8_fold0", "int8_fold1", "ptq")
    judged = command("quant.wqaq" if late else "prune.train", "--evaluate", f"{name}.pth", *OWN)
    assert judged.code == 0, judged.err
    assert f"test accuracy {accuracy:.2f} % on digits (360 pictures)" in judged.out
    network = restore.open(files / f"{name}.pth", OWN[1]).network
    with torch.no_grad():
        found = network.double().eval()(pictures())
    known = torch.tensor(json.loads((files / "logits.json").read_text())[name], dtype=torch.float64)
    torch.testing.assert_close(found, known, rtol=1e-6, atol=1e-6)


def test_they_are_pruned_with_one_notice(files: Path, command: Command) -> None:
    """7 of 26 channels are dropped, all inner ones; a layer keeps at least two. The declarations cause one notice."""
    check.say_undeclared.cache_clear()
    done = command("prune.normal_regular", "--percent", 0.3, "--model", "preprune.pth", "--save", "again.pth", *OWN)
    assert done.code == 0, done.err
    assert done.err.count("declares channel groups") == done.err.count(NOTICE) == 1
    content = raw(files / "again.pth")
    layers = ("stem.conv", "blocks.0.narrow.conv", "blocks.1.narrow.conv")
    assert [len(content["state_dict"][f"{layer}.weight"]) for layer in layers] == [16, 2, 2]
    assert content["transforms"][-1]["cfg_before"] == [16, 6, 4]  # the stream counts, too
    judged = command("prune.train", "--evaluate", "again.pth", *OWN)
    assert f"test accuracy {content['best_acc']:.2f} %" in judged.out
    assert content["best_acc"] > 30


@pytest.mark.parametrize("name", ["w4a4", "wbab", "int8_fold1"])
def test_they_are_merged_as_then(name: str, files: Path, command: Command) -> None:
    done = command("bn_merge.__main__", "--model", f"{name}.pth", "--save", "again.pth", *OWN)
    assert done.code == 0, done.err
    assert same_tensors(files / "again.pth", files / f"{name}_merged.pth")


def test_they_are_refined_and_quantized_anew(files: Path, command: Command) -> None:
    """Newly binarized layers read the values before a ReLU, wherever the graph has one; the file records it."""
    start = command("prune.train", "--refine", "pruned.pth", *SMALL, "--lr", "1e-30", *OWN)
    assert start.code == 0, start.err
    assert same_weights(files / start.path, files / "pruned.pth")
    done = command("quant.wbwtab", "--W", 2, "--A", 2, "--refine", "refined.pth", *SMALL, *OWN)
    assert done.code == 0, done.err
    content = raw(files / done.path)
    assert content["transforms"][-1]["spec"]["by_graph"] is True
    judged = command("quant.wbwtab", "--evaluate", done.path, *OWN)
    assert f"test accuracy {content['best_acc']:.2f} %" in judged.out


def same_weights(one: Path, other: Path) -> bool:
    a, b = raw(one)["state_dict"], raw(other)["state_dict"]
    return all(torch.equal(a[key], b[key]) for key in a if key.endswith("conv.weight"))


def test_without_its_declarations_a_binary_file_is_refused(files: Path, command: Command) -> None:
    """The declarations say which ReLUs were removed; without them it would be another network."""
    text = (files / "my_net.py").read_text()
    (files / "my_net.py").write_text(
        text[: text.index("    def channel_groups")] + text[text.index("\n\ndef residual") :]
    )
    for name in ("wbab", "wbab_merged"):
        assert_refused(
            command("quant.wqaq", "--evaluate", f"{name}.pth", *OWN), BAD_CHECKPOINT, "channel_groups(), and"
        )
    judged = command("quant.wqaq", "--evaluate", "w4a4.pth", *OWN)  # its codes have no sign
    assert f"test accuracy {raw(files / 'w4a4.pth')['best_acc']:.2f} %" in judged.out
