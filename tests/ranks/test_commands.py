"""Commands under torchrun: one rank prints and writes, all stop together, a lost rank ends the others, and a restart resumes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from engine.checkpoint import format as checkpoint
from tests.ranks.conftest import Together, ended

NET = ("--dataset", "digits", "--image_size", "8", "--cfg", "16,16,16,16,16,16,16,16", "--precision", "fp32", "--cpu")
TRAIN = ("prune.train", *NET, "--save", "out.pth", "--run_dir", "run")


def errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]


def workers(parent: int) -> list[int]:
    """Return the process ids of the ranks that a torchrun has started."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"PPid:\t{parent}\n" in (folder / "status").read_text():
                values = dict(v.split("=", 1) for v in (folder / "environ").read_text().split("\0") if "=" in v)
                found[int(values["RANK"])] = int(folder.name)
        except (OSError, KeyError):
            continue
    return [found[rank] for rank in sorted(found)]


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [*csv.DictReader(file)]


def until(condition: object, process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_as_undisturbed(together: Together, folder: Path, epochs: str) -> None:
    """Check that the run ended like an undisturbed one, bit for bit."""
    code, _, err = ended(together(2, *TRAIN[:-2], "--run_dir", "straight", "--epochs", epochs))
    assert code == 0, err
    found, straight = (
        torch.load(folder / run / "state.pth", weights_only=True)["model"] for run in ("run", "straight")
    )
    assert found.keys() == straight.keys()
    assert all(torch.equal(straight[key], value) for key, value in found.items())


@pytest.mark.slow
def test_two_processes_train_quantize_and_judge_as_one_does(together: Together, tmp_path: Path) -> None:
    """Files record the same history; one of the ranks prints and writes."""
    made = {}
    for count in (1, 2):
        line = (*TRAIN[:-3], f"net{count}.pth", "--run_dir", f"run{count}", "--epochs", "2", "--lr", "0.01")
        code, out, err = ended(together(count, *line))
        assert code == 0, err
        assert out.splitlines()[-1:] == [f"net{count}.pth"]
        assert err.count("epoch   1/2") == 1
        made[count] = checkpoint.load(tmp_path / f"net{count}.pth")
    one, two = made[1], made[2]
    assert (one.history, one.dataset, one.cfg, one.arch) == (two.history, two.dataset, two.cfg, two.arch)
    first, second = (metrics(tmp_path / f"run{count}")[0] for count in (1, 2))
    assert float(second["train_loss"]) == pytest.approx(float(first["train_loss"]), rel=1e-2)
    line = ("quant.wqaq", "--q_type", "0", "--bn_fold", "1", "--refine", "net2.pth", "--epochs", "1", "--cpu")
    code, out, err = ended(together(2, *line, "--save", "int8.pth"))
    assert code == 0, err
    scores = []
    for count in (1, 2):
        code, out, err = ended(together(count, "quant.wqaq", "--evaluate", "int8.pth", "--cpu", "--json"))
        assert code == 0, err
        scores.append(json.loads(out)["accuracy"])
    assert scores[0] == scores[1]
    code, out, err = ended(together(2, "quant.ptq", "--model", "net2.pth", "--cpu"))
    assert code == 0, err
    assert out.count("test accuracy") == 1


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_and_they_go_on(together: Together, tmp_path: Path) -> None:
    whole = (*TRAIN, "--epochs", "3")
    process = together(2, *whole)
    until(lambda: (tmp_path / "run" / "state.pth").exists(), process)
    os.kill(workers(process.pid)[1], signal.SIGTERM)
    code, _, err = ended(process)
    assert code != 0
    assert "everything up to here is saved" in err
    assert err.count("\nerror: stopped") + err.startswith("error: stopped") == 1
    code, _, err = ended(together(2, *whole, "--resume"))
    assert code == 0, err
    assert "resumed after epoch" in err
    assert_as_undisturbed(together, tmp_path, "3")


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_soon(together: Together, tmp_path: Path) -> None:
    process = together(2, *TRAIN, "--epochs", "50")
    until(lambda: (tmp_path / "run" / "state.pth").exists(), process)
    started = time.monotonic()
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    code, _, err = ended(process, 60)
    assert code != 0
    assert time.monotonic() - started < 30
    assert any(("process" in line and "ended" in line) or "stopped by SIGTERM" in line for line in errors(err)), err


@pytest.mark.slow
def test_a_restart_comes_to_the_same_end(together: Together, tmp_path: Path) -> None:
    whole = (*TRAIN, "--epochs", "4", "--resume", "auto")
    process = together(2, *whole, options=("--max-restarts=1",))
    until(lambda: (tmp_path / "run" / "state.pth").exists(), process)
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    code, _, err = ended(process)
    assert code == 0, err
    assert "resumed after epoch" in err
    assert_as_undisturbed(together, tmp_path, "4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ((*TRAIN, "--epochs", "1", "--train_batch_size", "31"), "--train_batch_size 31: 2 processes cannot share it equally"),
        ((*TRAIN, "--epochs", "1", "--fused", "on"), "--fused on: its loops know the pictures of one process"),
        (("prune.train", "--dataset", "imagefolder", "--data", "none"), "no pictures under none/train/<class>/"),
        (("prune.normal_regular", "--percent", "0.5"), "prune.normal_regular runs in one process"),
        (("scripts.results", "--dataset", "digits"), "scripts.results runs in one process"),
        (("prune.train", "--dataset", "nothing"), "argument --dataset: 'nothing' is not one of"),
    ],
    ids=["batch", "fused", "no pictures", "prune", "one process", "usage"],
)  # fmt: skip
def test_a_fault_is_one_error_and_one_hint(
    line: tuple[str, ...], says: str, together: Together, tmp_path: Path
) -> None:
    """The run folder's files stay."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pth").write_bytes(b"of another run")
    code, _, err = ended(together(2, *line))
    assert (tmp_path / "run" / "state.pth").read_bytes() == b"of another run"
    assert code != 0
    assert len(errors(err)) == 2, err
    assert says in errors(err)[0]
