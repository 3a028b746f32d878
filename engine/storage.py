"""Bytes of a .pth file: written whole, and believed only after every check that needs no knowledge of networks.

What the fields of a checkpoint mean is in checkpoint.py. The one call of torch.load in this project is here.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from engine.errors import BAD_CHECKPOINT, UserError
from engine.files import write_bytes

MAX_MEMBERS = 10_000
_RESAVE = "make the file again, or save a plain state_dict: torch.save(model.state_dict(), PATH)"


def bad(path: Path | str, what: str, hint: str = _RESAVE) -> UserError:
    """The error of every file that cannot be used: exit 3."""
    return UserError(f"{path}: {what}", hint, BAD_CHECKPOINT)


def to_bytes(value: dict[str, Any]) -> bytes:
    """Serialise to memory: the bytes then depend on the content alone, not on the file's name."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def save(path: Path, value: dict[str, Any]) -> None:
    """Write a dict of tensors and plain Python values; the old file stays whole if that fails.

    Raises:
        UserError: exit 6.
    """
    write_bytes(path, to_bytes(value))


def load(path: Path) -> tuple[Any, bool]:
    """Read what `save` wrote, or another torch file of tensors and plain values, onto the CPU.

    Checks, before torch sees the bytes: a regular file, a zip whose members are stored uncompressed,
    within the file's size and with matching checksums. No code from the file is ever run.

    Returns:
        the content, and whether checksums vouch for it (old files may have none).

    Raises:
        UserError: exit 3, saying what the file looks like.
    """
    content = _read(path)
    if content[:4] == b"PK\x03\x04":
        checked = _check_zip(path, content)
    else:
        checked = _check_legacy(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's notices on old storages: not the user's concern
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), checked
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        RecursionError,
        MemoryError,
        OverflowError,
        AssertionError,
        UnicodeDecodeError,
        NotImplementedError,
        ImportError,
        OSError,
    ) as fault:
        raise _explain(path, fault) from fault


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            raise bad(path, "no such file", "check the path, or run the command that makes it")
        if not path.is_file():
            raise bad(path, "not a regular file", "name a .pth file")
        return path.read_bytes()
    except OSError as fault:
        raise bad(path, f"cannot be read ({fault.strerror})", "check its permissions") from fault


def _check_zip(path: Path, content: bytes) -> bool:
    """Whether every member was compared with its checksum (torch can save without any)."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(members) > MAX_MEMBERS or len(set(names)) != len(names):
                raise bad(path, "a zip archive with too many or doubled members")
            if any(member.external_attr & 0x10 or member.is_dir() for member in members):
                raise bad(path, "damaged: a member of it claims to be a folder")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise bad(path, "a compressed zip archive; torch stores its members as they are")
            if any(".." in name.split("/") or name.startswith("/") for name in names):
                raise bad(path, "a zip archive with paths that lead out of it")
            if sum(member.file_size for member in members) > len(content):
                raise bad(path, "a zip archive that claims to be larger than its file")
            filled = [member for member in members if member.file_size]
            unchecked = [member for member in filled if member.CRC == 0]
            if unchecked and len(unchecked) < len(filled):
                raise bad(path, f"damaged: {unchecked[0].filename} has no checksum")
            if not unchecked:
                for member in filled:
                    archive.read(member)  # raises where a checksum does not match
            return not unchecked
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError, RuntimeError) as fault:
        raise bad(path, f"damaged ({fault})", "copy or make the file again") from fault


def _check_legacy(path: Path, content: bytes) -> bool:
    """A file of torch before 1.6 (a bare pickle), or something that is no checkpoint at all."""
    if not content:
        raise bad(path, "an empty file", "copy or make the file again")
    if content.startswith(b"version https://git-lfs"):
        raise bad(path, "a git-LFS pointer, not the file itself", "run git lfs pull")
    if content.lstrip()[:1] == b"<":
        raise bad(path, "looks like an HTML page", "download the file itself")
    if content.startswith((b"\xff\xd8", b"\x89PNG")):
        raise bad(path, "looks like a picture", "name a .pth file")
    if not content.startswith(b"\x80"):
        raise bad(path, "not a torch file", "name a .pth file")
    return False


def _explain(path: Path, fault: BaseException) -> UserError:
    blocked = re.search(r"(?:GLOBAL|Unsupported global: GLOBAL|global:?) ([\w.]+)", str(fault))
    if blocked:
        return bad(
            path,
            f"holds {blocked[1]}, not just tensors and plain values; opening it could run code",
            "in the program that wrote it: torch.save(model.state_dict(), PATH), with plain Python numbers beside it",
        )
    reason = (str(fault).splitlines() or [type(fault).__name__])[0][:200]
    return bad(path, f"cannot be read as tensors and plain values ({reason})")
