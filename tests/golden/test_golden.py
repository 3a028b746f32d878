"""Files of every format version are still read, and their networks still give the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Checkpoint
from engine.system import files
from tests.golden.make import HERE, STAGES, answers, own
from tests.tools.contents import raw

FILES = sorted(HERE.glob("format_*/*.pth"))


def test_every_stage_of_every_version_is_here_and_small() -> None:
    versions = sorted(path.name for path in HERE.glob("format_*"))
    assert versions == [f"format_{n}" for n in range(1, checkpoint.NEWEST_VERSION + 1)]
    assert len(FILES) == len(STAGES) * len(versions)
    for version in versions:
        assert sum(path.stat().st_size for path in (HERE / version).iterdir()) < 200_000


def test_pictures_are_cut_as_a_file_says_and_older_ones_do_not_say_it() -> None:
    for path in FILES:
        found = checkpoint.load(path)
        assert isinstance(found, Checkpoint)
        assert found.dataset.crop == ("imagenet" if path.parent.name == "format_3" else "shift")
        assert ("crop" in raw(path)["dataset"]) == (path.parent.name == "format_3")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_old_file_gives_the_same_answers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads((path.parent / "logits.json").read_text())[path.stem]
    assert len({tuple(row) for row in known}) > 1  # they depend on the picture
    torch.testing.assert_close(torch.tensor(answers(path, *own(path)[1:])), torch.tensor(known), rtol=1e-6, atol=1e-6)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_saved_again_gives_the_same_answers(path: Path, command, workplace: Path) -> None:
    result = command("scripts.convert", path, "new.pth", *own(path))
    assert result.code == 0, result.err
    arch = own(path)[1:]
    assert answers(workplace / "new.pth", *arch) == answers(path, *arch)
    ours, again = raw(path), raw(workplace / "new.pth")
    assert {k: v for k, v in ours.items() if k != "state_dict"} == {k: v for k, v in again.items() if k != "state_dict"}


def test_a_merged_file_answers_as_the_one_it_was_made_from() -> None:
    for folder in HERE.glob("format_*"):
        arch = own(folder / "merged.pth")[1:]
        merged, plain = (torch.tensor(answers(folder / f"{name}.pth", *arch)) for name in ("merged", "wbab"))
        torch.testing.assert_close(merged, plain, rtol=1e-5, atol=1e-5)  # the fold was rounded to float32


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_inspect_says(path: Path, command) -> None:
    result = command("engine.checkpoint.__main__", "inspect", path)
    assert result.code == 0
    content = raw(path)
    for words in (
        files.sha256(path), "all match", "all finite", f"{content['best_acc']:.2f} %", content["provenance"]["command"], "digits",
    ):  # fmt: skip
        assert words in result.out
    assert not content["cfg"] or f"cfg {','.join(map(str, content['cfg']))}" in result.out
    assert all(f" {n + 1}. {t['stage']}" in result.out for n, t in enumerate(content["transforms"]))
    seen = json.loads(command("engine.checkpoint.__main__", "inspect", path, "--json").out)
    assert (seen["sha256"], seen["checksums"], seen["finite"]) == (files.sha256(path), True, True)
    assert seen["transforms"] == content["transforms"]
    assert seen["numbers"] == sum(t.numel() for t in content["state_dict"].values())
