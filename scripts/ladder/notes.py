"""The ladder's own JSON files, read and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import BAD_CHECKPOINT, UserError


def load(path: Path, *keys: str, hint: str = "delete it: its row is made again") -> dict[str, Any]:
    """A JSON file of the ladder's own: of a row, of a step, or of the ladder itself.

    Raises:
        UserError: exit 3 naming the file if it is damaged or lacks one of `keys`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} is damaged: {fault}", hint, BAD_CHECKPOINT) from fault
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UserError(f"{path} is damaged: it lacks {', '.join(keys) or 'everything'}", hint, BAD_CHECKPOINT)
    return content
