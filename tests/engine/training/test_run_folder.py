"""The run folder: one run at a time, its files, and the refusal of a state with other flags."""

from __future__ import annotations

import csv
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from engine.checkpoint import archive
from engine.errors import BAD_CHECKPOINT, CANNOT_WRITE, LOCKED, USAGE, UserError
from engine.system.files import write_bytes
from engine.tasks.classification import CLASSIFICATION
from engine.training.progress import FitConfig
from engine.training.recipe import ORIGINAL
from engine.training.run_folder import RunFolder

FINGERPRINT = {"epochs": 3, "lr": 0.1, "steps": [80, 130], "stage": "train", "source_sha256": None}
STATE = {"epoch": 1, "step": 0, "loss": 0.0, "penalty": 0.0, "right": 0, "seen": 0, "rows": [{"epoch": 1}], "model": {}, "optimizer": {},
         "schedule": {}, "rng": []}  # fmt: skip

SECOND = """
import sys
from pathlib import Path
from engine.errors import UserError
from engine.training.run_folder import RunFolder
try:
    RunFolder(Path(sys.argv[1]))
except UserError as fault:
    print(fault)
    sys.exit(fault.code)
"""


def second(path: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", SECOND, path], capture_output=True, text=True, check=False)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on ") as fault:
        RunFolder(tmp_path / "run")
    assert fault.value.code == LOCKED
    other = second(tmp_path / "run")
    assert other.returncode == LOCKED, other.stderr
    assert f"in use by process {os.getpid()} on " in other.stdout
    del first  # the lock is released with its holder, however it ends
    assert second(tmp_path / "run").returncode == 0
    RunFolder(tmp_path / "run")


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / ".state.pth.abcdefgh.tmp").write_bytes(b"half")
    RunFolder(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock"]


def test_a_second_run_does_not_disturb_the_first(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    (tmp_path / ".state.pth.abcdefgh.tmp").write_bytes(b"being written")
    with pytest.raises(UserError) as fault:
        RunFolder(tmp_path)
    assert fault.value.code == LOCKED
    assert (tmp_path / ".state.pth.abcdefgh.tmp").exists()
    del first


def test_it_explains_itself(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.describe({"lr": 0.5}, FitConfig(ORIGINAL, seed=3), [])
    assert not (tmp_path / "metrics.csv").exists()
    flags = json.loads((tmp_path / "flags.json").read_text())
    assert flags["flags"] == {"lr": 0.5}
    assert (flags["resolved"]["seed"], flags["resolved"]["recipe"]["epochs"]) == (3, 300)
    assert set(json.loads((tmp_path / "versions.json").read_text())) == {
        "python",
        "torch",
        "torchvision",
        "model-compression",
    }
    rows = [{"epoch": 1, "train_loss": 0.1}, {"epoch": 2, "train_loss": 1e-9}]
    folder.write_metrics(rows)
    with (tmp_path / "metrics.csv").open() as file:
        assert [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)] == rows


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 4), ("lr", 0.2), ("steps", [80]), ("stage", "refine"), ("new", 1)],
)
def test_the_state_of_a_run_with_other_flags_is_refused_by_name(name: str, value: object, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    archive.save(folder.state_path, {"identity": FINGERPRINT, **STATE})
    assert folder.state(folder.state_path, FINGERPRINT) == {"identity": FINGERPRINT, **STATE}
    with pytest.raises(UserError) as fault:
        folder.state(folder.state_path, {**FINGERPRINT, name: value})
    assert fault.value.code == USAGE
    was = FINGERPRINT.get(name)
    assert f"other settings: {name} {'none' if was is None else was} -> {value}" in str(fault.value)


def test_the_state_of_a_run_from_another_input_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    """Other settings may follow from the file, and no flag mends them."""
    folder = RunFolder(tmp_path)
    archive.save(folder.state_path, {"identity": {**FINGERPRINT, "source_sha256": "a" * 64}, **STATE})
    with pytest.raises(
        UserError, match="other contents of its input file: sha256 aaaaaaaaaaaa -> bbbbbbbbbbbb"
    ) as fault:
        folder.state(folder.state_path, {**FINGERPRINT, "source_sha256": "b" * 64, "epochs": 4})
    assert fault.value.hint == "give the file that it began with, or start afresh without --resume"


def test_a_setting_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    archive.save(folder.state_path, {"identity": {**FINGERPRINT, "s": 0.1}, **STATE})  # -sr --s 0.1, resumed without
    with pytest.raises(UserError, match=r"s 0\.1 -> none"):
        folder.state(folder.state_path, FINGERPRINT)


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for content in ({"identity": FINGERPRINT}, {"state_dict": {}}):
        archive.save(folder.state_path, content)
        with pytest.raises(UserError, match="not the state of a run") as fault:
            folder.state(folder.state_path, FINGERPRINT)
        assert fault.value.code == BAD_CHECKPOINT
    with pytest.raises(UserError, match="no such file") as fault:
        folder.state(tmp_path / "other.pth", FINGERPRINT)
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize("name", ["state.pth", "other.pth"])
def test_a_hint_on_a_state_is_about_resuming(name: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError) as fault:
        folder.state(tmp_path / name, FINGERPRINT)
    assert fault.value.hint == "check the path, or run the command that makes it"
    whole = archive.to_bytes({"identity": FINGERPRINT, **STATE})
    foreign = pickle.dumps(os.system)
    for content in (
        b"",
        b"no state",
        foreign,
        whole[:-9],
        whole.replace(b"stage", b"stahe"),
        archive.to_bytes({"a": 1}),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as fault:
            folder.state(tmp_path / name, FINGERPRINT)
        assert (fault.value.code, fault.value.hint) == (BAD_CHECKPOINT, "start again without --resume")


def test_too_long_a_name_of_a_state_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read") as fault:
        RunFolder(tmp_path).state(tmp_path / ("x" * 300), FINGERPRINT)
    assert (fault.value.code, fault.value.hint) == (BAD_CHECKPOINT, "check its permissions")


def test_forgetting_leaves_the_flags_and_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.forget(Path("a.pth"))  # without any file
    for name in ("state.pth", "state.prev.pth", "result.json", "curve.png", "flags.json"):
        (tmp_path / name).write_bytes(b"of the run before")
    folder.forget(Path("a.pth"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "flags.json"]


def test_what_cannot_be_forgotten_is_a_fault(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "state.pth").mkdir()
    (tmp_path / "result.json").touch()
    with pytest.raises(UserError, match=r"cannot write .*state\.pth") as fault:
        folder.forget(Path("a.pth"))
    assert fault.value.code == CANNOT_WRITE


def test_what_was_saved_before_is_spoken_of_where_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as fault:
        RunFolder(tmp_path / "file" / "run")
    assert (fault.value.code, fault.value.hint) == (CANNOT_WRITE, "name another folder with --run_dir")
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run/flags.json").mkdir()
    for saved in (False, True):
        with pytest.raises(UserError) as fault:
            folder.describe({}, FitConfig(ORIGINAL), [])
        assert ("; the last saved state is intact, and --resume continues from it" in fault.value.hint) == saved
        folder.previous_path.touch()


@pytest.mark.parametrize("call", ["unlink", "link", "replace"])
def test_a_save_after_a_fall_back_keeps_the_good_state(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The damaged state must not replace the only intact one, wherever the save ends."""
    folder = RunFolder(tmp_path)
    whole = {"identity": FINGERPRINT, **STATE}
    archive.save(folder.previous_path, whole)
    folder.state_path.write_bytes(b"damaged")
    assert folder.state(folder.state_path, FINGERPRINT) == whole
    assert "continuing from" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(os, call, lambda *_, **__: sys.exit("killed"))
        with pytest.raises(SystemExit):
            write_bytes(folder.state_path, b"the next", folder.previous_path)
    assert folder.state(folder.state_path, FINGERPRINT) == whole
    assert capsys.readouterr().err == ""


def test_the_curve_is_a_picture_and_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    run = RunFolder(tmp_path)
    rows = [{"epoch": n, "train_loss": 1 / n, "train_accuracy": 50.0, "test_accuracy": 40.0} for n in (1, 2)]
    run.draw(rows, CLASSIFICATION)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "curve.png").unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    run.draw(rows, CLASSIFICATION)
    assert not (tmp_path / "curve.png").exists()
