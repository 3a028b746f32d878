"""Forgotten flags: resuming a run with other flags is refused, and the hint is the whole command that resumes it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.training import resuming
from engine.training.resuming import Difference
from tests.conftest import NARROW, SMALL, assert_refused, run_stages

Command = Callable[..., SimpleNamespace]
LINE = ("prune.train", "-sr", "--cfg", NARROW, *SMALL)
WHOLE = f"python -m {shlex.join(LINE)} --resume"
SAME = tuple(word for word in LINE if word not in ("--epochs", "1"))


@pytest.fixture(scope="module")
def _begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_stages(tmp_path_factory.mktemp("begun"), [LINE])


@pytest.fixture
def begun_once(command: Command, workplace: Path, _begun: Path) -> Command:
    """Return `command` in a folder in which LINE has run."""
    shutil.copytree(_begun, workplace, dirs_exist_ok=True)
    return command


def hint(result: SimpleNamespace) -> str:
    return result.err.splitlines()[-1]


def test_the_hint_is_the_whole_command_and_it_works(begun_once: Command) -> None:
    refused = begun_once(*SAME, "--epochs", 2, "--resume")
    assert_refused(refused, 2, "epochs 1 -> 2")
    assert hint(refused) == f"hint: start afresh without --resume, or continue with: {WHOLE}"
    done = begun_once(*shlex.split(hint(refused).partition("python -m ")[2]))
    assert (done.code, done.err) == (0, "already complete: models_save/nin_preprune.pth\n")
    refused = begun_once(*SAME, "--epochs", 2, "--resume", "runs/nin_preprune", "--run_dir", "elsewhere")
    assert hint(refused).endswith(f"continue with: {WHOLE} runs/nin_preprune/state.pth")


def test_settings_are_shown_in_the_words_of_flags() -> None:
    differing = [Difference("fused", None, True), Difference("s", None, 0.01), Difference("flip", True, False)]
    fault = resuming.other_run(Path("a.pth"), differing, own=False)
    assert str(fault).endswith("with other settings: fused off -> on, s none -> 0.01, flip on -> off")


def test_a_value_that_looks_like_a_change_is_shown_whole(tmp_path: Path) -> None:
    (tmp_path / "flags.json").write_text(json.dumps({"command": ["prune.train"]}))
    differing = list(resuming.differences({"device": "a -> b", "x": {"y": "True"}}, {"device": "c", "x": {"y": None}}))
    assert differing == [Difference("device", "a -> b", "c"), Difference("x.y", "True", None)]
    fault = resuming.other_run(tmp_path / "state.pth", differing, own=True)
    assert str(fault).endswith("with other settings: device a -> b -> c, x.y True -> none")
    assert fault.hint.endswith("python -m prune.train --resume --device 'a -> b'")


def test_other_pictures_are_refused_before_any_are_looked_for(
    begun_once: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.catalogue.load", lambda *_, **__: pytest.fail("pictures were read"))
    for given, now in (((), "auto"), (("--dataset", "cifar100"), "cifar100")):
        refused = begun_once("prune.train", "-sr", *given, "--resume")
        assert_refused(
            refused, 2, f"nin_preprune/state.pth belongs to a run with other settings: dataset digits -> {now}"
        )
        assert hint(refused).endswith(f"continue with: {WHOLE}")


def test_pictures_that_the_input_file_names_need_no_flag(refined: Command) -> None:
    line = ("quant.wqaq", "--refine", "--epochs", 1, "--quiet", "--cpu")
    assert refined(*line, "--dataset", "digits").code == 0
    assert refined(*line, "--resume").code == 0


def test_another_torch_is_not_mended_by_a_command(begun_once: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    assert hint(begun_once(*LINE, "--resume")) == "hint: repeat the flags of that run, or start afresh without --resume"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"command": "a b"}', '{"command": [1]}', '{"flags": 1}'])
def test_a_folder_that_does_not_tell_gives_the_old_hint(content: str, begun_once: Command) -> None:
    Path("runs/nin_preprune/flags.json").write_text(content)
    refused = begun_once(*SAME, "--epochs", 2, "--resume")
    assert hint(refused) == "hint: repeat the flags of that run, or start afresh without --resume"


def test_a_resumed_run_records_the_command_that_it_goes_on_with(begun_once: Command) -> None:
    Path("models_save/nin_preprune.pth").unlink()
    assert begun_once(*LINE, "--resume").code == 0
    assert json.loads(Path("runs/nin_preprune/flags.json").read_text())["command"] == list(LINE)
    assert resuming.going_on(Path("runs/nin_preprune")) == WHOLE


@pytest.mark.parametrize(
    ("differing", "told", "start"),
    [
        (
            Difference("ranks", 2, None),
            "a run of 2 processes, but this one has 1",
            "torchrun --nproc-per-node=2 -m ... --resume",
        ),
        (Difference("ranks", None, 4), "a run of 1 process, but this one has 4", "python -m ... --resume"),
    ],
)
def test_a_state_of_another_number_of_processes(differing: Difference, told: str, start: str, tmp_path: Path) -> None:
    fault = resuming.other_run(tmp_path / "state.pth", [differing], True)
    assert told in str(fault)
    assert fault.hint.endswith(start)


@pytest.mark.parametrize(("was", "flag"), [(None, "off"), (False, "off"), (True, "on")])
def test_a_run_with_other_loops_names_the_flag_that_goes_on(was: bool | None, flag: str, begun_once: Command) -> None:
    """--fused auto depends on the version, the batch and the compiler."""
    fault = resuming.other_run(Path("runs/nin_preprune/state.pth"), [Difference("fused", was, not was)], True)
    assert fault.hint == f"start afresh without --resume, or continue with: {WHOLE} --fused {flag}"
    assert begun_once(*LINE, "--fused", "off", "--resume").code == 0


@pytest.mark.parametrize(
    ("recorded", "changes", "added"),
    [
        (
            ["prune.train"],
            {"precision": ("bf16", "fp32"), "threads": (2, 4)},
            ["--precision", "bf16", "--threads", "2"],
        ),
        (["prune.train", "--fused=off"], {"fused": (None, True)}, []),
        (["prune.train", "--cpu"], {"device": ("cpu", "cuda"), "threads": (2, None)}, ["--threads", "2"]),
        (["prune.train"], {"device": ("cuda", "cpu"), "threads": (None, 2), "epochs": (1, 2)}, ["--device", "cuda"]),
    ],
)
def test_defaults_of_another_machine_are_named_unless_the_command_sets_them(
    recorded: list[str], changes: dict[str, tuple[Any, Any]], added: list[str], tmp_path: Path
) -> None:
    (tmp_path / "flags.json").write_text(json.dumps({"command": recorded}))
    differing = [Difference(name, *change) for name, change in changes.items()]
    assert resuming.going_on(tmp_path, None, differing).split()[-len(added) - 1 :] == ["--resume", *added]
