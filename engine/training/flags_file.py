"""A run folder and its flags.json, which records how the run was started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.cli.options import Trains

NAME = "flags.json"


def run_dir(options: Trains, save: Path) -> Path:
    """Return the folder of a run that writes `save`."""
    return options.training.run_dir or Path("runs") / save.stem


def read(folder: Path) -> dict[str, Any]:
    """Read flags.json; return an empty dict if it is missing or unreadable."""
    try:
        found = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
