"""Compare a saved run with the one that would continue it, and word what differs and which command continues it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cli.naming import called
from engine.cli.options import STATES, Trains
from engine.errors import UserError
from engine.training import flags_file

DEPENDING = {
    "fused": ("--fused",),
    "precision": ("--precision",),
    "device": ("--device", "--cpu"),
    "threads": ("--threads",),
}
"""Settings whose defaults depend on the machine or the version, and the flags that set them."""


@dataclass(frozen=True)
class Difference:
    """A setting that differs between a saved run and this one.

    Args:
        name: its name in the run's identity: `lr`, `spec.weight.bits`.
        was: the value of the saved run; None if it has none.
        now: the value of this run.
    """

    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        """Return the difference in the words of flags: `fused off -> on`, `lr 0.1 -> 0.2`."""
        return f"{self.name} {self._word(self.was)} -> {self._word(self.now)}"

    @property
    def set_back(self) -> tuple[str, str] | None:
        """The flag and its value that set the saved run's value; None if no machine's default sets it."""
        if self.name not in DEPENDING or (self.was is None and self.name != "fused"):
            return None
        return DEPENDING[self.name][0], self._word(self.was)

    def _word(self, value: Any) -> str:
        if value is None:
            return "off" if self.name == "fused" else "none"
        return ("off", "on")[value] if isinstance(value, bool) else str(value)


def differences(was: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[Difference]:
    """Yield each setting that differs; a nested one is named by its path, as `spec.weight.bits`."""
    for key in {**was, **now}:
        old, new = was.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield Difference(f"{prefix}{key}", old, new)


def going_on(folder: Path, state: Path | None = None, differing: Sequence[Difference] = ()) -> str:
    """Return the command that continues the run of a folder; empty if its flags.json does not have it.

    Args:
        state: the run's state file; None takes the one in the run folder.
        differing: settings that differ from this machine's.
    """
    words = flags_file.read(folder).get("command")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return ""
    return called(shlex.join((*words, "--resume", *([str(state)] if state else []), *_defaults(words, differing))))


def _defaults(words: list[str], differing: Sequence[Difference]) -> Iterator[str]:
    """Yield the flags that set differing settings as a run's defaults did, if its command does not name them."""
    named = {word.split("=")[0] for word in words}
    for each in differing:
        if each.set_back and named.isdisjoint(DEPENDING[each.name]):
            yield from each.set_back


def other_run(path: Path, differing: list[Difference], own: bool) -> UserError:
    """Return the error for a state that belongs to a run with other settings.

    Args:
        path: the state file.
        differing: the differing settings.
        own: whether it is the state in this run's own folder.
    """
    anew = "start afresh without --resume"
    text = f"{path} belongs to a run with other settings: {', '.join(map(str, differing))}"
    if many := next((each for each in differing if each.name == "ranks"), None):
        was, now = many.was or 1, many.now or 1  # one process records no number
        line = "... --resume"
        start = f"torchrun --nproc-per-node={was} -m {line}" if was > 1 else called(line)
        text = f"{path} belongs to a run of {was} process{'es' if was > 1 else ''}, but this one has {now}"
        return UserError(text, f"{anew}, or start the same number: {start}")
    if source := next((each for each in differing if each.name == "source_sha256"), None):  # others may follow from it
        was, now = (str(value or "none")[:12] for value in (source.was, source.now))
        text = f"{path} belongs to a run that began with other contents of its input file: sha256 {was} -> {now}"
        return UserError(text, f"give the file that it began with, or {anew}")
    line = going_on(path.parent, None if own else path, differing) if path.name in STATES else ""
    if not line or all(each.name == "torch" for each in differing):  # no flag can fix that
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
    folder = flags_file.run_dir(options, save)
    state = next((folder / name for name in STATES if (folder / name).exists()), None)
    if options.training.resume != "auto" or state is None:
        return
    flags = flags_file.read(folder).get("flags")
    was, now = flags.get("dataset") if isinstance(flags, dict) else None, options.data.dataset
    if was in (None, "auto", now) or (now is None and known):
        return
    raise other_run(state, [Difference("dataset", was, now or "auto")], own=True)
