"""Read from a run folder's flags.json how its run was started, for hints and for early comparisons of settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.cli.naming import called
from engine.cli.options import STATES, Trains
from engine.errors import UserError

BEGUN = "flags.json"
DEPENDING = {
    "fused": ("--fused",),
    "precision": ("--precision",),
    "device": ("--device", "--cpu"),
    "threads": ("--threads",),
}
"""Settings whose defaults depend on the machine or the version, and the flags that set them."""


def run_dir(options: Trains, save: Path) -> Path:
    """Return the folder of a run that writes `save`."""
    return options.training.run_dir or Path("runs") / save.stem


def read(folder: Path) -> dict[str, Any]:
    """Read flags.json; return an empty dict if it is missing or unreadable."""
    try:
        found = json.loads((folder / BEGUN).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def going_on(folder: Path, state: Path | None = None, differing: Sequence[str] = ()) -> str:
    """Return the command that continues the run of a folder; empty if its flags.json does not have it.

    Args:
        state: the run's state file; None takes the one in the run folder.
        differing: settings that differ from this machine's, with the state's and the current value.
    """
    words = read(folder).get("command")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return ""
    return called(shlex.join((*words, "--resume", *([str(state)] if state else []), *_defaults(words, differing))))


def _defaults(words: list[str], differing: Sequence[str]) -> Iterator[str]:
    """Yield the flags that set differing settings as a run's defaults did, if its command does not name them."""
    named = {word.split("=")[0] for word in words}
    for each in differing:
        name, _, change = each.partition(" ")
        was = change.split(" -> ")[0]
        value = {"True": "on", "None": "off"}[was] if name == "fused" else was
        flags = DEPENDING.get(name, ())
        if flags and value != "None" and named.isdisjoint(flags):
            yield from (flags[0], value)


def _worded(differing: str) -> str:
    """Return a differing setting in the words of flags: `fused off -> on` for `fused None -> True`."""
    name, _, change = differing.partition(" ")
    words = {"None": "off" if name == "fused" else "none", "True": "on", "False": "off"}
    return f"{name} {' -> '.join(words.get(value, value) for value in change.split(' -> '))}"


def other_run(path: Path, differing: list[str], own: bool) -> UserError:
    """Return the error for a state that belongs to a run with other settings.

    Args:
        path: the state file.
        differing: the differing settings, with the state's and the current value.
        own: whether it is the state in this run's own folder.
    """
    anew = "start afresh without --resume"
    text = f"{path} belongs to a run with other settings: {', '.join(map(_worded, differing))}"
    if many := [each for each in differing if each.startswith("ranks ")]:
        was, now = (1 if count == "None" else int(count) for count in many[0].removeprefix("ranks ").split(" -> "))
        start = f"torchrun --nproc-per-node={was} -m" if was > 1 else "python -m"
        text = f"{path} belongs to a run of {was} process{'es' if was > 1 else ''}, but this one has {now}"
        return UserError(text, f"{anew}, or start the same number: {start} ... --resume")
    line = going_on(path.parent, None if own else path, differing) if path.name in STATES else ""
    if not line or all(each.startswith(("torch ", "source_sha256 ")) for each in differing):  # no flag can fix that
        return UserError(text, f"repeat the flags of that run, or {anew}")
    return UserError(text, f"{anew}, or continue with: {line}")


def refuse_other_data(options: Trains, save: Path, known: bool) -> None:
    """Refuse to resume a run on other pictures before they are looked for, which may need a download.

    Args:
        save: the file that the run writes.
        known: whether the input file names its pictures, in case --dataset is not given.

    Raises:
        UserError: if the run in the folder used another data set (exit 2).
    """
    folder = run_dir(options, save)
    state = next((folder / name for name in STATES if (folder / name).exists()), None)
    if options.training.resume != "auto" or state is None:
        return
    flags = read(folder).get("flags")
    was, now = flags.get("dataset") if isinstance(flags, dict) else None, options.data.dataset
    if was in (None, "auto", now) or (now is None and known):
        return
    raise other_run(state, [f"dataset {was} -> {now or 'auto'}"], own=True)
