"""The packed file: one safetensors file with three rows of numbers, a description and a checksum over all of them.

safetensors has no checksum of its own. This module treats the description as plain JSON; deploy.description reads it.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from engine.cli.naming import called
from engine.errors import BAD_CHECKPOINT, UserError, first_line
from engine.system.files import OTHER_SAVE, write_bytes

KINDS: dict[str, tuple[str, Any, str]] = {
    "codes": ("U8", np.uint8, "u1"),
    "numbers": ("F32", np.float32, "<f4"),
    "integers": ("I32", np.int32, "<i4"),
}
"""The type of each row: its name in safetensors, in memory, and in the file."""

FORMAT, CROPPED, DETECTORS = FORMATS = 1, 2, 3
"""All formats are read. Older versions, which crop differently and know no boxes, refuse the later ones.

Format 2 is for pictures cropped by ImageNet's recipe. Format 3 is for detectors, with the names of their tensors and the settings
of their boxes. Detectors of format 2 lack both.
"""
SUFFIX = ".safetensors"
ENTRY = "packed"
"""The key in the safetensors header; its value is the format, the checksum and the description, separated by spaces."""
MOST_BYTES = 2**31
"""Limit of a whole file: two thousand times a binary ResNet-18."""
MOST_WORDS = 32 * 2**20
"""Limit of a description in bytes; safetensors readers refuse headers of 100 MB or more."""


class Rows(NamedTuple):
    """The rows of a file, one axis each.

    Args:
        codes: all codes, packed by deploy.codes.
        numbers: all scales, float weights and other fp32 numbers, finite.
        integers: all biases on a grid of sums, and the lowest codes of weights.
    """

    codes: NDArray[np.uint8]
    numbers: NDArray[np.float32]
    integers: NDArray[np.int32]


@dataclass(frozen=True)
class Contents:
    """The contents of a packed file.

    Args:
        description: plain JSON values.
        size: bytes of the file.
        sha256: of the file's bytes.
        version: of the format.
    """

    description: dict[str, Any]
    rows: Rows
    size: int = 0
    sha256: str = ""
    version: int = FORMAT


def content(contents: Contents) -> bytes:
    """Return the bytes of a packed file; equal contents give equal bytes.

    Raises:
        UserError: exit 2 if the description is too large or a number is not finite.
    """
    if not np.isfinite(contents.rows.numbers).all():
        raise UserError(
            "the packed file would hold a number that is not finite", "train again: a scale or bias overflowed"
        )
    words = json.dumps(contents.description, separators=(",", ":"), sort_keys=True, allow_nan=False)
    if len(words.encode()) > MOST_WORDS:
        raise UserError(
            f"the network's description takes {len(words):,} bytes, the limit is {MOST_WORDS:,}",
            "pack a smaller network",
        )
    tensors = {name: row.astype(KINDS[name][2]) for name, row in contents.rows._asdict().items()}
    # one entry: safetensors writes several in a different order each time
    return safetensors.numpy.save(
        tensors, {ENTRY: f"{contents.version} {_checksum(words, contents.rows, contents.version)} {words}"}
    )


def write(path: Path, contents: Contents) -> int:
    """Write a packed file and return its size in bytes.

    Raises:
        UserError: as `content`; exit 6 if the file cannot be written.
    """
    written = content(contents)
    write_bytes(path, written, remedy=OTHER_SAVE)
    return len(written)


def read(path: Path) -> Contents:
    """Read a packed file.

    Raises:
        UserError: exit 3, naming the fault, for any file that `write` does not write.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe may never end
            raise _bad(path, "it is not a regular file", "name a packed file")
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except FileNotFoundError as fault:
        raise _bad(path, "no such file", "check the path") from fault
    except OSError as fault:
        raise _bad(path, f"it cannot be read: {fault.strerror or first_line(fault)}", "check the path") from fault
    if len(content) > MOST_BYTES:
        raise _bad(path, f"it is larger than {MOST_BYTES:,} bytes")
    try:
        tensors = dict(safetensors.deserialize(content))
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_once)
        version, checksum, words = header["__metadata__"][ENTRY].split(" ", 2)
    except KeyError as fault:
        raise _bad(path, "it is a safetensors file, but not a packed network", _making()) from fault
    except (safetensors.SafetensorError, ValueError, AttributeError, RecursionError) as fault:
        if path.suffix == SUFFIX:
            raise _bad(path, f"it is damaged, or not a packed file ({first_line(fault)})") from fault
        if path.suffix == ".pth":
            what = "it is not a packed file, but by its name a checkpoint"
            raise _bad(path, what, _making(f" --model {shlex.quote(str(path))}")) from fault
        raise _bad(path, f"it is not a packed file ({first_line(fault)})", _making()) from fault
    if version not in map(str, FORMATS):
        raise _bad(
            path,
            f"it has format {version[:20]}; this version reads {FORMAT} to {max(FORMATS)}",
            "use the version that wrote the file",
        )
    if {*tensors} != {*KINDS}:
        raise _bad(path, f"it holds the tensors {', '.join(sorted(tensors))[:80]}, not {', '.join(KINDS)}")
    rows = Rows(*(_flat(path, name, tensors[name]) for name in KINDS))
    if checksum != _checksum(words, rows, int(version)):
        raise _bad(path, "its checksum does not match: the contents have changed")
    if not np.isfinite(rows.numbers).all():
        raise _bad(path, "it holds a number that is not finite")
    try:
        description = json.loads(words, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as fault:
        raise _bad(path, f"its description cannot be read ({first_line(fault)})") from fault
    if not isinstance(description, dict):
        raise _bad(path, "its description is not a JSON object")
    return Contents(description, rows, len(content), hashlib.sha256(content).hexdigest(), int(version))


def looks_packed(path: Path) -> bool:
    """Return whether a file is a packed file by its header, which tells it from other safetensors; without one, by its name."""
    try:
        if not path.is_file():
            return path.suffix == SUFFIX
        with path.open("rb") as stream:
            size, first = int.from_bytes(stream.read(8), "little"), stream.read(1)
            if first != b"{":
                return path.suffix == SUFFIX
            return ENTRY in json.loads(first + stream.read(min(size, MOST_WORDS) - 1)).get("__metadata__", {})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return path.suffix == SUFFIX


def _flat(path: Path, name: str, tensor: dict[str, Any]) -> NDArray[Any]:
    stored, kind, layout = KINDS[name]
    if tensor["dtype"] != stored or len(tensor["shape"]) != 1:
        raise _bad(path, f"its {name} are {tensor['dtype']} of shape {tensor['shape']}, not {stored} of one axis")
    return np.frombuffer(tensor["data"], layout).astype(kind)  # a copy: the buffer may be unaligned


def _checksum(words: str, rows: Rows, version: int = FORMAT) -> str:
    """Return the checksum over the version, the description and the rows; version 1 is left out."""
    digest = hashlib.sha256(b"" if version == FORMAT else str(version).encode())
    for part in (words.encode(), *(row.astype(KINDS[name][2]).tobytes() for name, row in rows._asdict().items())):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; refuse duplicate keys, of which two readers may take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _making(flags: str = "") -> str:
    """Return the hint for a file that is not packed."""
    return f"make one: {called(f'deploy.pack{flags}')}"


def _bad(path: Path, what: str, hint: str | None = None) -> UserError:
    again = f"copy the file again, or make it again: {called('deploy.pack')}"
    return UserError(f"{path}: {what}", hint or again, BAD_CHECKPOINT)
