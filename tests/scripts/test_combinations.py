"""The table of combinations: it is written where the user asked, and the command leaves no other working folder behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from scripts import chain


@pytest.mark.parametrize("fails", [False, True])
def test_it_works_in_its_own_folder_and_comes_back(
    fails: bool, workplace: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def result(line: str) -> dict[str, Any]:
        seen.add(Path.cwd())
        if fails:
            raise UserError("a step failed", "see the error above", 5)
        found = {"agree": 9, "pictures": 10, "largest_logit_difference": 0.0}
        return {"path": "made.pth", "accuracy": 50.0, **(found if "compare" in line else {})}

    monkeypatch.setattr(chain, "result", result)
    done = command("scripts.combinations", "--save", "made/table.md")
    assert (done.code, seen) == (5 if fails else 0, {workplace / "runs" / "combinations"})
    assert Path.cwd() == workplace
    if not fails:
        assert done.path == "made/table.md"
        assert len(Path("made/table.md").read_text().splitlines()) == 2 + 36 + 4 * 17
