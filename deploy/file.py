"""The packed file: one safetensors file of three long rows and a description, with a checksum over all of them.

safetensors holds no checksum of its own. What a description says of a network is the program's; here it is JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from engine.errors import BAD_CHECKPOINT, UserError, first_line
from engine.system.files import write_bytes

KINDS: dict[str, tuple[str, Any, str]] = {
    "codes": ("U8", np.uint8, "u1"),
    "numbers": ("F32", np.float32, "<f4"),
    "integers": ("I32", np.int32, "<i4"),
}
"""Of each row: its type as safetensors calls it, in memory, and in the file."""

FORMAT, NEWEST = 1, 2
"""Format 2 is for pictures cut by ImageNet's recipe, and for detectors: older programs, which would cut them otherwise and know no
boxes, refuse it. Both are read."""
ENTRY = "packed"
"""Of the safetensors header: the format, the checksum and the description, with spaces between."""
MOST_BYTES = 2**31
"""Of a whole file: two thousand times ResNet-18 in binary."""
MOST_WORDS = 32 * 2**20
"""Bytes of a description: readers of safetensors refuse headers of 100 MB and more."""
_AGAIN = "copy the file again, or make it again: python -m deploy.pack"


class Rows(NamedTuple):
    """The long rows of a file, one axis each.

    Args:
        codes: all codes, as deploy.codes packs them.
        numbers: all scales, float weights and the like, each finite.
        integers: all biases on a grid of sums.
    """

    codes: NDArray[np.uint8]
    numbers: NDArray[np.float32]
    integers: NDArray[np.int32]


@dataclass(frozen=True)
class Contents:
    """What a packed file holds.

    Args:
        description: plain JSON values.
        size: bytes of the file.
        sha256: of its bytes.
        version: of the format.
    """

    description: dict[str, Any]
    rows: Rows
    size: int = 0
    sha256: str = ""
    version: int = FORMAT


def content(contents: Contents) -> bytes:
    """The bytes of a packed file; equal contents give equal bytes.

    Raises:
        UserError: exit 2 for a network whose description is too large or whose numbers are not finite.
    """
    if not np.isfinite(contents.rows.numbers).all():
        raise UserError(
            "the packed file would hold a number that is not finite", "train again: a scale or bias overflowed"
        )
    words = json.dumps(contents.description, separators=(",", ":"), sort_keys=True, allow_nan=False)
    if len(words.encode()) > MOST_WORDS:
        raise UserError(f"the description of the network takes {len(words):,} bytes", "pack a smaller network")
    tensors = {name: row.astype(KINDS[name][2]) for name, row in contents.rows._asdict().items()}
    # one entry: the order of several is another each time
    return safetensors.numpy.save(
        tensors, {ENTRY: f"{contents.version} {_checksum(words, contents.rows, contents.version)} {words}"}
    )


def write(path: Path, contents: Contents) -> int:
    """Write a packed file and give its size.

    Raises:
        UserError: as `content`, and exit 6.
    """
    written = content(contents)
    write_bytes(path, written)
    return len(written)


def read(path: Path) -> Contents:
    """Read a packed file.

    Raises:
        UserError: exit 3, naming what is wrong, for anything that `write` does not write.
    """
    try:
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
        raise _bad(path, "a safetensors file, and no packed network", "python -m deploy.pack makes one") from fault
    except (safetensors.SafetensorError, ValueError, AttributeError, RecursionError) as fault:
        if path.suffix == ".safetensors":
            raise _bad(path, f"it is damaged, or no packed file ({first_line(fault)})") from fault
        again = f"python -m deploy.pack --model {path}" if path.suffix == ".pth" else "python -m deploy.pack makes one"
        raise _bad(path, f"it is no packed file ({first_line(fault)})", again) from fault
    if version not in (str(FORMAT), str(NEWEST)):
        raise _bad(
            path,
            f"it has format {version[:20]}, this program reads {FORMAT} to {NEWEST}",
            "use the version that wrote it",
        )
    if {*tensors} != {*KINDS}:
        raise _bad(path, f"it holds {', '.join(sorted(tensors))[:80]}, and not {', '.join(KINDS)}")
    rows = Rows(*(_flat(path, name, tensors[name]) for name in KINDS))
    if checksum != _checksum(words, rows, int(version)):
        raise _bad(path, "its checksum does not match: some of it has changed")
    if not np.isfinite(rows.numbers).all():
        raise _bad(path, "it holds a number that is not finite")
    try:
        description = json.loads(words, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as fault:
        raise _bad(path, f"its description cannot be read ({first_line(fault)})") from fault
    if not isinstance(description, dict):
        raise _bad(path, "its description is no JSON object")
    return Contents(description, rows, len(content), hashlib.sha256(content).hexdigest(), int(version))


def _flat(path: Path, name: str, tensor: dict[str, Any]) -> NDArray[Any]:
    stored, kind, layout = KINDS[name]
    if tensor["dtype"] != stored or len(tensor["shape"]) != 1:
        raise _bad(path, f"its {name} are {tensor['dtype']} of shape {tensor['shape']}, not {stored} of one axis")
    return np.frombuffer(tensor["data"], layout).astype(kind)  # a copy: it may lie at an odd place


def _checksum(words: str, rows: Rows, version: int = FORMAT) -> str:
    """Over all that a file says; format 1 goes without saying."""
    digest = hashlib.sha256(b"" if version == FORMAT else str(version).encode())
    for part in (words.encode(), *(row.astype(KINDS[name][2]).tobytes() for name, row in rows._asdict().items())):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Two readers may take different ones of equal keys, so there must be none."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _bad(path: Path, what: str, hint: str = _AGAIN) -> UserError:
    return UserError(f"{path}: {what}", hint, BAD_CHECKPOINT)
