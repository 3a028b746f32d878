"""What commands share: settings that make another run are refused on resume, and odd paths end in two lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import NARROW, SMALL

FLAGS = ("--cfg", NARROW, *SMALL)


@pytest.mark.parametrize(("flag", "value"), [("--image_size", 16), ("--classes", 12), ("--val", 100), ("--seed", 2)])
def test_resume_refuses_another_run(flag: str, value: int, command) -> None:
    assert command("prune.train", *FLAGS).code == 0
    before = Path("models_save/nin.pth").read_bytes()
    done = command("prune.train", *FLAGS, "--resume", flag, value)
    assert done.code == 2
    assert "belongs to a run with other settings" in done.err
    assert Path("models_save/nin.pth").read_bytes() == before


def test_the_seed_recipe_freezes_ranges_in_its_own_last_quarter(command, monkeypatch: pytest.MonkeyPatch) -> None:
    import quant.prepare

    asked = []
    real = quant.prepare.freeze_late
    monkeypatch.setattr(quant.prepare, "freeze_late", lambda epochs: (asked.append(epochs), real(epochs))[1])
    monkeypatch.setattr("engine.loop.fit", lambda *_, **__: [{"epoch": 1}])
    flags = [f for f in FLAGS if f not in ("--epochs", "1")]
    assert command("quant.wqaq", "--q_type", 1, "--recipe", "seed", *flags).code == 0
    assert asked == [30]


def test_paths_that_are_no_files(command) -> None:
    os.mkfifo("pipe")
    for path, code in (("pipe", 6), ("x" * 300, 6), ("x" * 300 + "/a.pth", 6)):
        done = command("prune.train", *FLAGS, "--save", path)
        assert (done.code, done.err.count("\n")) == (code, 2), done.err
    done = command("prune.normal_regular", "--model", "x" * 300)
    assert (done.code, done.err.count("\n")) == (3, 2)


def test_a_link_stays_a_link(command) -> None:
    Path("real").mkdir()
    Path("link.pth").symlink_to("real/file.pth")
    assert command("prune.train", *FLAGS, "--save", "link.pth").code == 0
    assert Path("link.pth").is_symlink()
    assert Path("real/file.pth").is_file()
