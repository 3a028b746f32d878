"""A hint names options of the command that prints it, or of a command that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import assert_refused
from tests.tools import hints

Command = Callable[..., SimpleNamespace]


@pytest.mark.parametrize(
    ("module", "argv", "expected"),
    [
        ("scripts.curves", ("lsq", "--folder", "file/x"), "name a writable folder with --folder"),
        ("scripts.convert", ("a.pth", "file/x.pth"), "name another NEW"),
        ("scripts.report", ("a.pth", "--html", "file/x.html"), "name a writable file: --html F.html"),
        ("scripts.report", ("a.pth", "--save", "file/x.md"), "name a writable file with --save"),
        ("scripts.histograms", ("a.pth", "--save", "file/x.png"), "name a writable file with --save"),
        ("scripts.combinations", ("--save", "file/x.md"), "name a writable file with --save"),
        ("scripts.results", ("--dataset", "digits"), "work in a writable folder"),
        ("prune.train", ("--save", "file/x.pth"), "name a writable file with --save"),
    ],
)
def test_a_place_that_cannot_be_written(command: Command, module: str, argv: tuple[str, ...], expected: str) -> None:
    for name in ("file", "results"):
        Path(name).write_text("in the way")
    result = command(module, *argv)
    assert_refused(result, 6, "cannot write")
    assert result.err.splitlines()[-1] == f"hint: {expected}"


def test_a_hint_names_options_of_a_command() -> None:
    """The fixture `command` asks this of every hint in every test."""
    for line in ("name a writable file with --save", "leave -sr out", "give --dataset digits: prune.train --picture x"):
        assert hints.of_no_command("scripts.curves", f"error: --zzz\nhint: {line}\n"), line
    for line in (
        "name it with --folder",
        "make it with: python -m prune.train -sr --save x.pth",
        "see the nin-s1 file",
    ):
        assert not hints.of_no_command("scripts.curves", f"error: --zzz\nhint: {line}\n"), line
