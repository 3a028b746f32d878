"""Resuming: wherever a run stops, the resumed run writes the same bytes as an uninterrupted one, or is refused with a reason."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import archive
from engine.data.splits import TensorSplit
from engine.errors import BAD_CHECKPOINT, TERMINATED
from engine.training.progress import FitConfig
from engine.training.recipe import ORIGINAL
from engine.training.run_folder import RunFolder
from tests.conftest import assert_refused
from tests.tools.equality import same
from tests.tools.stops import BATCHES, CFG, EPOCHS, MODES, STEPS, snapshot, stop


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # it takes a third of the time, and no power fails here


@pytest.fixture
def ready(command: Callable, flags: tuple[str, ...]) -> Callable:
    """Return `ready(mode)`, which makes a mode's input and returns its command line."""

    def make(mode: str) -> tuple[str, ...]:
        if mode == "refine":
            sparse = command("prune.train", "-sr", *CFG, *flags, "--epochs", 1, "--save", "sparse.pth")
            assert sparse.code == 0
            pruned = command("prune.normal_regular", "--percent", 0.3, "--model", "sparse.pth", "--save", "pruned.pth",
                             "--data", flags[3], "--cpu")  # fmt: skip
            assert pruned.code == 0, pruned.err
        return (*MODES[mode], *flags, "--save", "out.pth", "--run_dir", "run")

    return make


def outcome() -> tuple[bytes, bytes, dict]:
    """Return a finished run's file, metrics and last state, and remove the run."""
    found = Path("out.pth").read_bytes(), Path("run/metrics.csv").read_bytes(), archive.load(Path("run/state.pth"))[0]
    shutil.rmtree("run")
    Path("out.pth").unlink()
    return found


@pytest.mark.parametrize(
    ("mode", "batches"),
    [
        ("plain", (4, 9, 17, 24)),
        ("refine", (9, 24)),
        ("int8", (17, 24)),
        *((mode, (9,)) for mode in MODES if mode not in ("plain", "refine", "int8")),
        *(pytest.param(mode, (4, 9, 17, 24), marks=pytest.mark.slow) for mode in MODES if mode != "plain"),
    ],
)
def test_stopped_in_every_epoch(mode: str, batches: tuple[int, ...], ready: Callable, command: Callable) -> None:
    """It stops after the epoch's last step, in the middle, and during evaluation; int8 freezes its ranges in the last epoch."""
    line = ready(mode)
    assert command(*line).code == 0
    whole = outcome()
    for batch in batches:
        with stop(batch):
            done = command(*line)
        assert done.code == TERMINATED, (batch, done.err)
        left = archive.load(Path("run/state.pth"))[0]
        epoch, place = divmod(batch - 1, BATCHES)
        assert (left["epoch"], left["step"]) == (epoch, min(place + 1, STEPS)), batch
        assert command(*line, "--resume").code == 0
        assert same(outcome(), whole), batch


@pytest.mark.slow
def test_stopped_at_every_batch(ready: Callable, command: Callable) -> None:
    line = ready("plain")
    assert command(*line).code == 0
    whole = outcome()
    for batch in range(1, EPOCHS * BATCHES + 1):
        with stop(batch):
            assert command(*line).code == TERMINATED
        assert command(*line, "--resume", "auto").code == 0
        assert same(outcome(), whole), batch


def test_stopped_again_and_again(ready: Callable, command: Callable) -> None:
    line = ready("adam")
    assert command(*line).code == 0
    whole = outcome()
    for _ in range(EPOCHS * BATCHES):
        with stop(3):  # enough to evaluate and take one step
            code = command(*line, "--resume").code
        if code == 0:
            break
        assert code == TERMINATED
    assert same(outcome(), whole)


def test_stopped_where_it_must_be_noticed(ready: Callable, command: Callable) -> None:
    """Each part of the state matters: without it, or with another value, the result differs or the run is refused."""
    line = ready("gap")
    assert command(*line).code == 0
    whole = outcome()
    with stop(9):
        assert command(*line).code == TERMINATED
    state = archive.load(Path("run/state.pth"))[0]
    shutil.copytree("run", "stopped")

    def resumed(**changes: Any) -> bool:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("stopped", "run")
        Path("run/state.prev.pth").unlink()
        archive.save(Path("run/state.pth"), {k: v for k, v in {**state, **changes}.items() if v is not None})
        done = command(*line, "--resume")
        if done.code:
            assert_refused(done, BAD_CHECKPOINT, "state")
            return False
        return same(outcome(), whole)

    def model(part: str, change: Callable) -> dict:
        return {key: change(value) if key.endswith(part) else value for key, value in state["model"].items()}

    assert resumed()
    for part in state:  # each of them removed: refused
        assert not resumed(**{part: None}), part
    fresh = {"state": {}, "param_groups": state["optimizer"]["param_groups"]}
    assert not resumed(optimizer=fresh)
    assert not resumed(optimizer={})
    assert not resumed(schedule={})
    assert not resumed(epoch=0)
    assert not resumed(step=state["step"] - 1)
    assert not resumed(loss=state["loss"] + 1)
    assert not resumed(right=state["right"] + 1)
    assert not resumed(rows=[])
    assert not resumed(rng=[state["rng"][0].roll(1)])
    assert not resumed(model=model("running_mean", torch.zeros_like))
    assert not resumed(model=model("running_var", lambda v: v * 1.01))
    assert not resumed(model=model("previous", torch.zeros_like))  # ternary codes of the step before
    assert not resumed(model=model("block3.conv.weight", torch.sign))  # latent weights


def test_the_ranges_of_observers_count(ready: Callable, command: Callable) -> None:
    line = ready("int8")
    assert command(*line).code == 0
    whole = outcome()
    with stop(9):
        assert command(*line).code == TERMINATED
    state = archive.load(Path("run/state.pth"))[0]
    for part in (".low", ".high", ".seen"):
        lost = {k: v - 1 if k.endswith(part) else v for k, v in state["model"].items()}
        assert lost.keys() == state["model"].keys()
        archive.save(Path("run/state.pth"), {**state, "model": lost})
        assert command(*line, "--resume").code == 0
        Path("run/state.pth").unlink()
        assert Path("out.pth").read_bytes() != whole[0], part


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (("--lr", 0.07), "lr 0.05 -> 0.07"),
        (("--train_batch_size", 7), "batch_size 8 -> 7"),
        (("--arch", "nin_3x3"), "arch nin -> nin_3x3"),
        (("--seed", 2), "seed 1 -> 2"),
        (("--Wbits", 3), "spec.weight.bits 4 -> 3"),
        (("--epochs", 5), "epochs 4 -> 5"),
        (("--wd", 0), "weight_decay "),
    ],
)
def test_other_flags_are_refused_by_name(change: tuple, name: str, ready: Callable, command: Callable) -> None:
    line = (*ready("wqaq"), "--lr", 0.05)
    assert command(*line).code == 0
    before = snapshot()
    assert_refused(command(*line, "--resume", *change), 2, "belongs to a run with other settings", name)
    assert snapshot() == before


def test_a_run_that_is_complete_touches_nothing(
    ready: Callable, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ready("int8")
    first = command(*line)
    before, whole = snapshot(), Path("out.pth").read_bytes()
    for more in (("--resume",), ("--resume", "auto"), ("--resume", "--json")):
        done = command(*line, *more)
        assert (done.code, done.err) == (0, "already complete: out.pth\n")
        assert "--json" in more or done.out == first.out
        assert snapshot() == before
    with monkeypatch.context() as patch:  # the file is written again without training
        patch.setattr(TensorSplit, "training_batches", None)
        for damage in (Path.unlink, lambda path: path.write_bytes(b"another")):
            damage(Path("out.pth"))
            done = command(*line, "--resume")
            assert (done.code, done.out) == (0, first.out)
            assert "already complete" not in done.err
            assert Path("out.pth").read_bytes() == whole
    assert "already complete" in command(*line, "--resume").err
    assert "already complete" not in command(*line).err  # without --resume, it runs again
    assert Path("out.pth").read_bytes() == whole


def test_a_result_of_the_run_before_does_not_count(ready: Callable, command: Callable) -> None:
    line = ready("plain")
    assert command(*line, "--lr", 0.3).code == 0
    with stop(EPOCHS * BATCHES + 1):  # trained with another rate, but not written
        assert command(*line).code == TERMINATED
    old = Path("out.pth").read_bytes()
    done = command(*line, "--resume")
    assert "already complete" not in done.err
    assert Path("out.pth").read_bytes() != old


def test_metrics_are_what_the_state_says(tmp_path: Path) -> None:
    """Rows after the state, torn rows and duplicate rows are removed when the run resumes."""
    folder, draws = RunFolder(tmp_path), random.Random(3)
    rows = [{"epoch": float(n), "test_loss": draws.random()} for n in range(1, 6)]
    for n in range(50):
        folder.write_metrics(rows)
        text = (tmp_path / "metrics.csv").read_text()
        (tmp_path / "metrics.csv").write_text(text[: draws.randrange(len(text))] if n % 2 else text + text)
        done = draws.randrange(6)
        folder.describe({}, FitConfig(ORIGINAL), rows[:done])
        expected = "".join(text.splitlines(keepends=True)[: done + 1])
        assert (tmp_path / "metrics.csv").read_text() == expected if done else not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_stopped_between_metrics_and_state(
    epoch: int, ready: Callable, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, left = ready("plain"), iter(range(EPOCHS))
    assert command(*line).code == 0
    whole, real = outcome(), archive.to_bytes

    def mortal(value: dict) -> bytes:
        if next(left) == epoch - 1:
            raise KeyboardInterrupt
        return real(value)

    with monkeypatch.context() as patch:
        patch.setattr(archive, "to_bytes", mortal)
        assert command(*line).code == 130
    assert len(Path("run/metrics.csv").read_text().splitlines()) == epoch + 1
    assert command(*line, "--resume").code == 0
    assert same(outcome(), whole)
