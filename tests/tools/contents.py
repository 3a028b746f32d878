"""Read checkpoint files as raw dicts, and read dicts that a test has changed as checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from engine.checkpoint import archive
from engine.checkpoint.format import Checkpoint, load


def raw(path: Path | str) -> dict[str, Any]:
    """Return the dict in a file."""
    return archive.load(Path(path)).value


def typed(content: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint that a file with this content is read as.

    Raises:
        UserError: as format.load.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pth")
        archive.save(path, content)
        found = load(path)
    assert isinstance(found, Checkpoint)
    return found
