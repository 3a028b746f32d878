"""Read and write the bytes of a .pth file.

A file is written completely or not at all. It is read only after every check that needs no knowledge of networks.

format.py defines the fields of a checkpoint. Nothing else in this project calls torch.load.
"""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from engine.checkpoint import pickles
from engine.cli.naming import called
from engine.errors import BAD_CHECKPOINT, UserError, first_line
from engine.system.files import OTHER_SAVE, write_bytes

MAX_MEMBERS = 10_000
MAX_DEPTH, MAX_VALUES, MAX_BITS = 64, 1_000_000, 1024
_COPY_AGAIN = "copy or make the file again"
_RESAVE = "make the file again, or save a plain state_dict: torch.save(model.state_dict(), PATH)"
_PLAINLY = "in the program that wrote it: torch.save(model.state_dict(), PATH), with plain Python numbers beside it"


def bad_file(path: Path | str, what: str, hint: str = _RESAVE) -> UserError:
    """Return the error for a file that cannot be used (exit 3)."""
    return UserError(f"{path}: {what}", hint, BAD_CHECKPOINT)


def to_bytes(value: dict[str, Any]) -> bytes:
    """Serialise in memory, so that the bytes depend on the content alone and not on the file's name."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def save(path: Path, value: dict[str, Any]) -> None:
    """Write a dict of tensors and plain Python values; if that fails, the old file stays intact.

    Raises:
        UserError: if the file cannot be written (exit 6).
    """
    write_bytes(path, to_bytes(value), remedy=OTHER_SAVE)


class Loaded(NamedTuple):
    """A file's content, whether checksums cover it (old files may have none), and the hash and size of its bytes."""

    value: Any
    checksums: bool
    sha256: str
    size: int


def load(path: Path) -> Loaded:
    """Read a file of `save`, or another torch file of tensors and plain values, onto the CPU.

    Before torch sees the bytes, the checks are: it is a regular file; it is a zip archive whose members are stored
    uncompressed, fit into the file's size and match their checksums; its pickles name only what tensors need.
    torch then gets a copy with the checked members alone, because two zip readers may see two archives in one file.
    Afterwards, all values must be of plain types and nested no deeper than `MAX_DEPTH`. No code from the file is run.

    Raises:
        UserError: if a check fails (exit 3); the message says what the file looks like.
    """
    content = _read(path)
    if path.suffix == ".safetensors":
        return Loaded(_safetensors(path, content), False, hashlib.sha256(content).hexdigest(), len(content))
    check = _check_zip if content[:4] == b"PK\x03\x04" else _check_legacy
    believed, checked, inside = check(path, content)
    digest, size = hashlib.sha256(content).hexdigest(), len(content)
    del content  # frees memory; torch gets only the checked copy
    for pickled, count in inside:
        _refuse_foreign(path, pickled, count)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about old storages; the user can do nothing about them
            value = torch.load(believed, map_location="cpu", weights_only=True)
    except Exception as fault:  # a damaged or hostile pickle can make torch raise nearly anything
        raise _explain(path, fault) from fault
    _check_plain(path, value)
    return Loaded(value, checked, digest, size)


PACKED = {"codes", "numbers", "integers"}
"""The tensors in a file of deploy.pack."""


def _safetensors(path: Path, content: bytes) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file with its own library, which runs no code either."""
    try:
        from safetensors import torch as reader
    except ImportError as fault:
        hint = "pip install safetensors, or in the program that wrote it: torch.save(model.state_dict(), PATH)"
        raise UserError(f"{path}: safetensors is not installed", hint) from fault
    try:
        found = reader.load(content)
        if {*found} == PACKED:
            raise bad_file(
                path,
                "a packed file: it can be run, but holds no network to train or compress",
                f"inspect it with: {called(f'deploy.pack --inspect {shlex.quote(str(path))}')}",
            )
        return found
    except UserError:
        raise
    except Exception as fault:
        raise bad_file(path, f"not a safetensors file, or damaged ({first_line(fault)[:200]})", _COPY_AGAIN) from fault


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            if path.is_symlink():
                raise bad_file(path, "a link to a missing file", "check where it points")
            raise bad_file(path, "no such file", "check the path, or run the command that makes it")
        if not path.is_file():
            raise bad_file(path, "not a regular file", "name a .pth file")
        return path.read_bytes()
    except OSError as fault:
        raise bad_file(path, f"cannot be read ({fault.strerror})", "check its permissions") from fault


Checked = tuple[io.BytesIO, bool, list[tuple[bytes, int]]]
"""The bytes for torch, whether checksums cover them, and each stream of pickles in them with its count of pickles."""


def _check_zip(path: Path, content: bytes) -> Checked:
    """Copy every member and compare it with its checksum, if it has one (torch can save without checksums)."""
    copied, filled, unchecked, inside = io.BytesIO(), 0, [], []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(copied, "w") as copy:
            members = archive.infolist()
            names = [member.filename.lower() for member in members]  # torch ignores case in names
            if len(members) > MAX_MEMBERS or len(set(names)) != len(names):
                raise bad_file(path, "a zip archive with too many members, or with two of the same name")
            if any(member.external_attr & 0x10 or member.is_dir() for member in members):
                raise bad_file(path, "damaged: one of its members claims to be a folder", _COPY_AGAIN)
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise bad_file(path, "a compressed zip archive; torch stores members uncompressed")
            if any(".." in name.split("/") or name.startswith("/") for name in names):
                raise bad_file(path, "a zip archive with paths that lead out of it")
            if sum(member.file_size for member in members) > len(content):
                raise bad_file(path, "a zip archive that claims to be larger than its file")
            for member, name in zip(members, names, strict=True):
                stored, found = _stored(content, member), zipfile.ZipInfo(member.filename)
                copy.writestr(found, stored)  # also computes found.CRC
                filled += bool(stored)
                if found.CRC != member.CRC:
                    if member.CRC:
                        raise bad_file(path, f"damaged: {member.filename} does not match its checksum", _COPY_AGAIN)
                    unchecked.append(member.filename)
                if name.endswith(".pkl"):
                    inside.append((bytes(stored), 1))
            if unchecked and len(unchecked) < filled:
                raise bad_file(path, f"damaged: {unchecked[0]} has no checksum", _COPY_AGAIN)
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        ValueError,
        OSError,
        RuntimeError,
        struct.error,
    ) as fault:
        raise bad_file(path, f"damaged ({fault})", _COPY_AGAIN) from fault
    copied.seek(0)
    return copied, not unchecked, inside


def _stored(content: bytes, member: zipfile.ZipInfo) -> memoryview:
    """Return a member's bytes without checking them: they follow its local header, which has two lengths at byte 26."""
    name, more = struct.unpack_from("<HH", content, member.header_offset + 26)
    start = member.header_offset + 30 + name + more
    stored = memoryview(content)[start : start + member.file_size]
    if len(stored) < member.file_size:
        raise zipfile.BadZipFile(f"{member.filename} is cut off")
    return stored


def _check_legacy(path: Path, content: bytes) -> Checked:
    """Check a file of torch before 1.6 (five pickles, then bare numbers); refuse a file that is no checkpoint."""
    if not content:
        raise bad_file(path, "an empty file", _COPY_AGAIN)
    if content.startswith(b"version https://git-lfs"):
        raise bad_file(path, "a git-LFS pointer, not the file itself", "run git lfs pull")
    if content.lstrip()[:1] == b"<":
        raise bad_file(path, "looks like an HTML page", "download the file itself")
    if content.startswith((b"\xff\xd8", b"\x89PNG")):
        raise bad_file(path, "looks like a picture", "name a .pth file")
    if not content.startswith(b"\x80"):
        if content[8:9] == b"{":
            name = path.with_suffix(".safetensors").name
            raise bad_file(path, "a safetensors file by its content", f"rename it: {name}")
        raise bad_file(path, "not a torch file", "name a .pth file")
    return io.BytesIO(content), False, [(content, 5)]


def _refuse_foreign(path: Path, pickled: bytes, count: int) -> None:
    try:
        name = pickles.first_forbidden_name(pickled, count)
    except ValueError as fault:
        raise bad_file(path, f"not a torch file, or damaged ({first_line(fault)[:200]})") from fault
    if name and name.startswith("torch._"):
        raise bad_file(path, f"holds {name}, but only dense tensors and plain values can be read")
    if name:
        raise bad_file(
            path, f"holds {name[:200]}, not just tensors and plain values; opening it could run code", _PLAINLY
        )


def _check_plain(path: Path, value: Any) -> None:
    """Refuse values that later code cannot handle: nested too deeply or endlessly, of other types, or huge integers."""
    todo, met = [(value, 0)], 0
    while todo:
        item, depth = todo.pop()
        met += 1
        if depth > MAX_DEPTH or met > MAX_VALUES:
            raise bad_file(path, "its values are nested too deeply, or there are too many")
        if isinstance(item, dict):
            todo += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, (list, tuple, set)):
            todo += [(part, depth + 1) for part in item]
        elif isinstance(item, int):
            if item.bit_length() > MAX_BITS:
                raise bad_file(path, f"holds an integer of more than {MAX_BITS} bits")
        elif item is not None and not isinstance(item, (torch.Tensor, str, bytes, float)):
            raise bad_file(path, f"holds a {type(item).__name__}, not just tensors and plain values", _PLAINLY)


def _explain(path: Path, fault: Exception) -> UserError:
    """Return torch's reason for refusing a file, in one line."""
    blocked = re.search(r"(?:GLOBAL|global:?) ([\w.]+)", str(fault))
    if blocked:
        return bad_file(
            path, f"holds {blocked[1]}, not just tensors and plain values; opening it could run code", _PLAINLY
        )
    return bad_file(path, f"cannot be read as tensors and plain values ({first_line(fault)[:200]})")
