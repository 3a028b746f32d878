"""Results and notes of the ladder: loading and saving keeps the bytes, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.data import pixels
from engine.errors import BAD_CHECKPOINT, UserError
from quant import recipes
from scripts.ladder import fingerprint, notes, result, rows
from scripts.ladder.notes import Note, Spent
from scripts.ladder.result import Diverged, Done, Stale
from tests.tools.house import ROOT
from tests.tools.ladder import options

PUBLISHED = sorted((ROOT / "results").glob("*/*-s*.json"))


def test_there_are_published_results() -> None:
    assert len(PUBLISHED) >= 58


def test_every_row_has_run_on_real_pictures() -> None:
    """docs/results.md says it."""
    found = {result.load(path).row for path in PUBLISHED if path.parent.name.startswith("cifar10-jpeg")}
    assert found == {row.name for row in rows.ROWS}


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_published_result_comes_out_with_the_same_bytes(path: Path, tmp_path: Path) -> None:
    found = result.load(path)
    assert isinstance(found, Done)
    result.save(tmp_path / path.name, found)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        {"row": "a", "label": "A", "seed": 2, "status": "stale"},
        {"row": "a", "label": "A", "seed": 2, "status": "diverged", "commands": ["c"], "device": "cpu", "machine": "m",
         "threads": {"a": None}, "seconds": {"a": 1.5}, "version": {"a": None}, "sha256": {}, "diverged_in": "a"},
    ],
    ids=["stale", "diverged"],
)  # fmt: skip
def test_the_others_too(content: dict, tmp_path: Path) -> None:
    path = tmp_path / "a-s2.json"
    path.write_text(text := json.dumps(content, indent=2) + "\n")
    found = result.load(path)
    assert isinstance(found, Stale if content["status"] == "stale" else Diverged)
    result.save(path, found)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"row": "a", "seed": 1}, "it lacks row, seed, status"),
        ({"row": "a", "seed": 1, "status": "lost"}, "no status 'lost'"),
        ({"row": "a", "seed": 1, "status": "diverged"}, "it lacks row, seed, diverged_in"),
        ({"row": "a", "seed": 1, "status": "done", "accuracy": 1.0}, "it lacks row, label, seed, dataset, pictures,"),
    ],
)
def test_a_damaged_result_is_named(content: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a-s1.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as fault:
        result.load(path)
    assert (fault.value.code, fault.value.hint) == (BAD_CHECKPOINT, "delete it; its row runs again")


def test_what_an_older_note_does_not_tell_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    old = {"status": "done", "parents": {}, "result": {"path": "a.pth"}, "sha256": "1"}
    path.write_text(json.dumps(old))
    note = Note.load(path)
    assert (note.command, note.device, note.threads, note.diverged_in) == (None, None, None, None)
    assert notes.to_json(note) == old
    path.write_text(json.dumps({"status": "done"}))
    with pytest.raises(UserError, match="lacks sha256, parents, result"):
        Note.load(path)


def test_time_spent_is_read_in_every_form_it_had(tmp_path: Path) -> None:
    path = tmp_path / "a.spent"
    assert Spent.load(path, 3) == Spent(0.0, 3)
    for text, spent in (
        ("{", Spent(0.0, 3)),
        ("12.5", Spent(12.5, 3)),
        ('{"seconds": 1.5, "threads": 2}', Spent(1.5, 2)),
        ('{"seconds": 1.5, "threads": null}', Spent(1.5, None)),
    ):
        path.write_text(text)
        assert Spent.load(path, 3) == spent, text


def test_a_ladder_begun_earlier_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "ladder.json"
    path.write_bytes((ROOT / "results" / "digits" / "ladder.json").read_bytes())
    said = json.loads(path.read_text())
    now = fingerprint.of(options())
    assert {key: now[key] for key in said} == said
    fingerprint.compare_or_write(path, now, begun=True)
    plain = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    path.write_text(json.dumps({"mean": [0.0] * 3, "std": [0.0] * 3}))  # it said 0 of plain pictures
    mean, std = pixels.statistics(plain, fingerprint.DIGITS)
    fingerprint.compare_or_write(path, {"mean": list(mean), "std": list(std)}, begun=True)
    with pytest.raises(UserError, match="another ladder: std"):
        fingerprint.compare_or_write(path, {"mean": list(mean), "std": [0.1] * 3}, begun=True)


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/ladder.json")), ids=lambda path: path.parent.name)
def test_ladders_begun_earlier_name_todays_recipes(path: Path) -> None:
    """A ladder whose file names another recipe is refused."""
    said = {key: value for key, value in json.loads(path.read_text()).items() if key.startswith("recipe of ")}
    now = recipes.table("digits" if path.parent.name == "digits" else "other")
    assert len(said) > 5
    assert said == {key: now[key.removeprefix("recipe of ")] for key in said}


def test_a_data_set_has_a_folder_of_results() -> None:
    assert options().name == "digits"
    assert options(val=100).name == "digits-val100"
    assert options(dataset="imagefolder", root=Path("some/my pictures")).name == "my-pictures"
