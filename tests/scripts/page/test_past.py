"""A file's origin: its parents by their hashes, its run folder, and the words for parents that are gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models import files as opener, registry
from models.files import Opened
from scripts import describe
from scripts.page import files, past
from scripts.page.entry import Entry

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def chain(refined: Command, workplace: Path, _chain: Path) -> Path:
    """A folder with models_save/ and runs/ of a network that was trained, pruned and refined."""
    shutil.copytree(_chain / "runs", workplace / "runs")
    return workplace


def opened(path: str) -> Opened:
    return opener.open(Path(path))


def entry(path: str) -> Entry:
    known = opened(path)
    return files.entry(known, describe.row(known), past.Known())


def test_commands_of_all_stages_the_oldest_first(chain: Path) -> None:
    lines = entry("models_save/nin_refine.pth").provenance.splitlines()
    commands = [line.split()[2] for line in lines if not line.startswith("#")]
    assert commands == ["prune.train", "prune.normal_regular", "prune.train"]
    hashes = [opened(f"models_save/nin_{name}.pth").checkpoint.sha256 for name in ("preprune", "prune", "refine")]
    assert [line.rpartition("sha256 ")[2] for line in lines if ", sha256 " in line] == hashes
    assert [line.rpartition("sha256 ")[2] for line in lines if "parent's" in line] == hashes[:2]
    assert sum("seed 1; python " in line for line in lines) == 3


def test_it_is_the_same_from_another_folder(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = entry("models_save/nin_refine.pth")
    monkeypatch.chdir("/")
    there = entry(str(chain / "models_save/nin_refine.pth"))
    assert there.curve == here.curve
    assert there.provenance.count("\npython -m prune") == here.provenance.count("\npython -m prune") == 3


def test_another_file_of_that_name_is_not_believed(chain: Path) -> None:
    shutil.copy("models_save/nin_refine.pth", "models_save/nin_preprune.pth")
    text = entry("models_save/nin_refine.pth").provenance
    assert text.splitlines()[0].startswith("# models_save/nin_preprune.pth (sha256 ")
    assert text.splitlines()[0].endswith(" was not found; earlier commands are not known")
    assert text.count("\npython -m prune") == 2


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read for their hashes alone."""
    read: list[Path] = []
    real = past.sha256
    monkeypatch.setattr(past, "sha256", lambda path: read.append(path) or real(path))
    return read


def test_no_file_is_read_for_a_hash_that_was_not_recorded(chain: Path, hashed: list[Path]) -> None:
    checkpoint = opened("models_save/nin_prune.pth").checkpoint
    silent = replace(checkpoint, provenance=replace(checkpoint.provenance, parent_sha256=None))
    _, missing = past.ancestors(Path("models_save/nin_prune.pth"), silent, past.Known())
    assert missing.startswith("models_save/nin_preprune.pth (sha256 not recorded) was not found")
    assert not hashed


def test_a_file_is_hashed_once_for_all_entries(chain: Path, hashed: list[Path]) -> None:
    shutil.copy("models_save/nin_refine.pth", "models_save/nin_preprune.pth")  # so no hash fits
    pruned, known = opened("models_save/nin_prune.pth"), past.Known()
    for name in ("a.pth", "b.pth"):
        _, missing = past.ancestors(Path("models_save", name), pruned.checkpoint, known)
        assert missing
    assert [path.name for path in hashed] == ["nin_preprune.pth"]


def test_curves_are_of_this_very_file(chain: Path) -> None:
    curve = entry("models_save/nin_refine.pth").curve
    assert [row["epoch"] for row in curve] == [1]
    assert curve[0]["test_accuracy"] == pytest.approx(opened("models_save/nin_refine.pth").checkpoint.metrics.accuracy)
    pruned = entry("models_save/nin_prune.pth")
    assert (pruned.curve, pruned.no_curve) == ((), "its last stage (prune) has no epochs")
    shutil.copy("runs/nin_preprune/result.json", "runs/nin_refine/result.json")  # another run is in the folder
    gone = entry("models_save/nin_refine.pth")
    assert (gone.curve, gone.no_curve) == (
        (),
        "its run folder runs/nin_refine was not found, or holds the run of another file",
    )


@pytest.mark.parametrize("damage", ["", "epoch,test_accuracy\n1,many\n", "accuracy\n5\n"])
def test_damaged_metrics_are_no_curve(damage: str, chain: Path) -> None:
    Path("runs/nin_refine/metrics.csv").write_text(damage)
    assert entry("models_save/nin_refine.pth").curve == ()


def test_layers_know_what_they_had_before_pruning(chain: Path) -> None:
    layers = entry("models_save/nin_refine.pth").layers
    assert [layer.name for layer in layers] == [f"block{n}.conv" for n in range(1, 10)]
    checkpoint = opened("models_save/nin_refine.pth").checkpoint
    assert [layer.kept for layer in layers] == [*checkpoint.cfg, 10]
    assert [layer.before for layer in layers] == [8] * 8 + [10]
    assert {(layer.weight_bits, layer.input_bits) for layer in layers} == {(32, 32)}


def test_the_whole_network_is_built_without_weights(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = opened("models_save/nin_refine.pth").checkpoint
    drawn: list[torch.device] = []
    monkeypatch.setattr(nn.Conv2d, "reset_parameters", lambda conv: drawn.append(conv.weight.device))
    before, why = files._before(checkpoint)
    assert (set(before or {}), why) == ({f"block{n}.conv" for n in range(1, 10)}, "")
    assert {device.type for device in drawn} == {"meta"}


@pytest.mark.parametrize("raised", ["KeyError('gone')", "SystemExit(3)", "OSError('gone')"])
def test_a_network_of_ones_own_that_cannot_be_built_again_is_named(raised: str, chain: Path) -> None:
    Path("my.py").write_text(f"def net(classes=10):\n    raise {raised}\n")
    checkpoint = replace(opened("models_save/nin_refine.pth").checkpoint, arch="my.py:net", arch_args={"classes": 10})
    before, why = files._before(checkpoint)
    assert (before, why.startswith("--arch my.py:net: my.py:2: ")) == ({}, True), why


def test_what_a_library_raises_is_named(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = opened("models_save/nin_refine.pth").checkpoint

    def broken(*_: object, **__: object) -> nn.Module:
        raise RuntimeError("no such widths")

    monkeypatch.setitem(registry.NETWORKS, "nin", broken)
    before, why = files._before(checkpoint)
    assert (before, why.endswith("RuntimeError: no such widths")) == ({}, True)


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("python -m prune.train", "runs/a"),
        ("python -m prune.train --save out/b.pth", "runs/b"),
        ("python -m prune.train --save=out/b.pth --run_dir 'my run'", "my run"),
        ("python -m prune.train 'open", "runs/a"),
    ],
)
def test_the_run_folder_is_that_of_the_command(command: str, folder: str) -> None:
    assert past._run_dir(Path("models_save/a.pth"), command) == folder
