"""Where a checkpoint comes from: the files it was made from, found again by their hashes, and the curve of its last run.

A file records no absolute path. So a parent or a run folder is looked for from the working folder and from the folders
around the file. It counts where its hash is the recorded one: another file of that name is not believed.
"""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.checkpoint.format import Checkpoint, load
from engine.checkpoint.history import Trained
from engine.checkpoint.words import flat
from engine.errors import UserError
from engine.system.files import sha256
from engine.system.terminal import one_line
from scripts.page.entry import Curve

AROUND = 3
"""Folders above a file that a recorded path may start from."""


@dataclass(frozen=True)
class Ancestor:
    """A file on the way to another one; its checkpoint holds no tensors."""

    path: Path
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Known:
    """The files that were read before: checkpoints by their hashes, and hashes by resolved paths."""

    files: dict[str, Ancestor] = field(default_factory=dict)
    hashes: dict[Path, str] = field(default_factory=dict)

    def hash(self, path: Path) -> str:
        """Return the hash of a file, which is read once."""
        path = path.resolve()
        if path not in self.hashes:
            self.hashes[path] = sha256(path)
        return self.hashes[path]


def ancestors(path: Path, checkpoint: Checkpoint, known: Known) -> tuple[list[Ancestor], str]:
    """Return the chain of files that ends in this one, the oldest first, and what is missing before it.

    Args:
        known: this file and those found on the way are added.
    """
    chain = [_remembered(path, checkpoint, known)]
    while parent := chain[0].checkpoint.provenance.parent:
        wanted = chain[0].checkpoint.provenance.parent_sha256
        found = known.files.get(wanted or "") or _found(chain[0].path, parent, wanted, known)
        if found is None or found in chain:
            return chain, f"{parent} (sha256 {wanted or 'not recorded'}) was not found; earlier commands are not known"
        chain.insert(0, found)
    return chain, ""


def _remembered(path: Path, checkpoint: Checkpoint, known: Known) -> Ancestor:
    light = Ancestor(path, replace(checkpoint, state_dict={}))
    if checkpoint.sha256:
        known.files.setdefault(checkpoint.sha256, light)
        known.hashes[path.resolve()] = checkpoint.sha256
    return light


def _found(path: Path, parent: str, wanted: str | None, known: Known) -> Ancestor | None:
    if not wanted:
        return None
    for there in (*_places(path, parent), path.parent / Path(parent).name):
        try:
            if there.is_file() and wanted == known.hash(there) and isinstance(read := load(there), Checkpoint):
                return _remembered(there, read, known)
        except (OSError, UserError):
            continue
    return None


def _places(path: Path, recorded: str) -> Iterator[Path]:
    """Yield where a recorded path may lead."""
    yield Path(recorded)
    folder = path.resolve().parent
    for base in (folder, *folder.parents)[: AROUND + 1]:
        yield base / recorded


def told(chain: Iterable[Ancestor], missing: str) -> str:
    """Return the commands of a chain, the oldest first, as lines for a shell: all but the commands are comments."""
    lines = [f"# {one_line(missing)}"] if missing else []
    for number, each in enumerate(chain, 1):
        made = each.checkpoint.provenance
        lines += [
            f"# {number}. {one_line(str(each.path))}, sha256 {each.checkpoint.sha256}",
            f"#    seed {'unknown' if made.seed is None else made.seed}; {one_line(flat(made.versions)) or 'versions unknown'}",
            *([f"#    parent's sha256 {one_line(made.parent_sha256)}"] if made.parent_sha256 else []),
            one_line(made.command) if made.command != "unknown" else "#    the file does not say which command made it",
        ]
    return "\n".join(lines)


def curve(path: Path, checkpoint: Checkpoint) -> tuple[Curve, str]:
    """Return what the last run measured after each epoch, and why there is nothing where there is nothing."""
    last = checkpoint.history[-1] if checkpoint.history else None
    if not isinstance(last, Trained):
        return (), f"its last stage ({last.name if last else 'none'}) has no epochs"
    folder = _run_dir(path, checkpoint.provenance.command)
    for there in dict.fromkeys(_places(path, folder)):
        try:
            result = json.loads((there / "result.json").read_bytes())
            if not isinstance(result, dict) or result.get("sha256") != checkpoint.sha256:
                continue
            with (there / "metrics.csv").open(encoding="utf-8", newline="") as file:
                rows = tuple({key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file))
        except (OSError, ValueError, TypeError):
            continue
        if rows and all("epoch" in row for row in rows):
            return rows, ""
    return (), f"its run folder {folder} was not found, or holds the run of another file"


def _run_dir(path: Path, command: str) -> str:
    """Return the run folder that a recorded command wrote to: --run_dir, else runs/ and the stem of its file."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    said = {}
    for word, after in zip(words, (*words[1:], ""), strict=False):
        name, equals, value = word.partition("=")
        if name in ("--run_dir", "--save"):
            said[name] = value if equals else after
    return said.get("--run_dir") or f"runs/{Path(said.get('--save') or path.name).stem}"
