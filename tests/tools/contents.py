"""Checkpoint files as the dicts that are on disk, and dicts that a test has changed as the checkpoints they would be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from engine.checkpoint import archive
from engine.checkpoint.format import Checkpoint, load


def raw(path: Path | str) -> dict[str, Any]:
    """The dict in a file, as it is."""
    return archive.load(Path(path)).value


def typed(content: dict[str, Any]) -> Checkpoint:
    """What a file of ours with this content is read as.

    Raises:
        UserError: as format.load.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pth")
        archive.save(path, content)
        found = load(path)
    assert isinstance(found, Checkpoint)
    return found
