"""Read the files of a data set from disk, or download them over https, checked by md5 and by one process at a time.

cifar.py and mnist.py parse the files. Names, addresses and md5 sums are torchvision's; torchvision itself falls back
to http if https fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from engine.errors import BAD_DATA, CANNOT_WRITE, UserError, first_line
from engine.system.files import sweep, write_bytes
from engine.system.lock import locked
from engine.system.messages import notice

START_S = 5  # seconds for a download to start, per address: a machine without a network learns it soon
STALL_S = 60  # seconds of silence allowed within a download: its first part is worth waiting for
LARGEST = 1 << 30  # bytes; the archives have 170 million
SCHEMES = ("https",)
ELSEWHERE = "point --data at a writable folder, or take --dataset digits"


def obtain(source: Any, root: Path, files: dict[str, str]) -> dict[str, bytes]:
    """Return the bytes of a torchvision data set's `files` (names and md5 sums), downloaded if `root` lacks them.

    Raises:
        UserError: naming the file, and both hashes if they differ (exit 4); if it cannot be written (exit 6).
    """
    found = _on_disk(root / source.base_folder, files)
    return fetch(source, root, files) if isinstance(found, str) else found


def _on_disk(folder: Path, files: dict[str, str]) -> dict[str, bytes] | str:
    """Return the bytes of a set's files by name, or a description of the first missing or damaged one."""
    contents = {}
    for name, wanted in files.items():
        found = _whole(folder / name, wanted)
        if isinstance(found, str):
            return found
        contents[name] = found
    return contents


def _whole(path: Path, wanted: str) -> bytes | str:
    """Return a file's bytes, or words saying that it is missing or has another md5 (which reveals damage, not forgery).

    Raises:
        UserError: if it exists but cannot be read (exit 4).
    """
    content = held(path)
    if content is None:
        return f"{path} is missing"
    found = md5(content)
    return content if found == wanted else f"{path} is damaged: md5 {found}, not {wanted}"


def held(path: Path) -> bytes | None:
    """Return a file's bytes, or None if it does not exist.

    Raises:
        UserError: if it exists but cannot be read (exit 4).
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        hint = "make it readable, point --data at another folder, or take --dataset digits"
        raise UserError(f"{path} cannot be read ({problem.strerror or problem})", hint, BAD_DATA) from problem


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def fetch(source: Any, root: Path, files: dict[str, str]) -> dict[str, bytes]:
    """Unpack the archive under `root`, after downloading it if it is missing or damaged; one process at a time.

    Returns:
        The bytes of `files`, by name.

    Raises:
        UserError: if it cannot be had or is damaged (exit 4); if it cannot be written (exit 6).
    """
    folder, archive = root / source.base_folder, root / source.filename
    try:
        with _alone(root, f".{source.filename}.lock"):
            contents = _on_disk(folder, files)
            if not isinstance(contents, str):
                return contents  # another process has fetched it while this one waited
            for path in (archive, *(folder / name for name in files)):
                sweep(path)
            packed = _whole(archive, source.tgz_md5)
            if isinstance(packed, str):
                packed = _download(source.url, archive, source.tgz_md5, packed if archive.exists() else contents)
            return _unpack(packed, archive, folder, source.base_folder, files)
    except UserError as problem:
        if problem.code == CANNOT_WRITE:
            raise
        raise UserError(str(problem), _ways_out(source, root), BAD_DATA) from problem
    except OSError as problem:
        raise UserError(f"{root}: {problem.strerror or problem}", _ways_out(source, root), BAD_DATA) from problem


def fetch_file(addresses: Sequence[str], path: Path, wanted: str, why: str, remedy: str) -> bytes:
    """Download a single file from the first address that works, and return its bytes; one process at a time.

    Args:
        why: why it is downloaded, for the error.

    Raises:
        UserError: with `remedy` as the hint (exit 4); if it cannot be written (exit 6).
    """
    try:
        with _alone(path.parent, f".{path.name}.lock"):
            found = _whole(path, wanted)
            if isinstance(found, bytes):
                return found  # another process has fetched it while this one waited
            sweep(path)
            for url in addresses:
                try:
                    return _download(url, path, wanted, why)
                except UserError as problem:
                    if problem.code == CANNOT_WRITE:
                        raise
                    why = str(problem)
            raise UserError(why, remedy, BAD_DATA)
    except OSError as problem:
        raise UserError(f"{path}: {problem.strerror or problem}", remedy, BAD_DATA) from problem


def _ways_out(source: Any, root: Path) -> str:
    return f"put {source.filename} under {root}/, point --data at a folder that has it, or take --dataset digits"


@contextlib.contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made if missing; the kernel releases the lock however a process ends.

    Afterwards the lock file is removed, and so are folders that were made here and are still empty.
    """
    made, waited = list[Path](), False

    def wait(lock: TextIO) -> None:
        nonlocal waited
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waited:
                notice("another process is fetching these pictures; waiting for it")
            waited = True
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: parallel downloads may corrupt each other, and the md5 finds it

    lock = locked(lambda: _lock_file(root, name, made), wait)
    try:
        yield
    finally:
        with lock, contextlib.suppress(OSError):
            (root / name).unlink()  # while this process still holds it
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # fails if the folder is not empty


def _lock_file(root: Path, name: str, made: list[Path]) -> TextIO:
    """Open the lock file, retrying if another process removes the folder meanwhile; new folders are added to `made`."""
    tries = 100
    while True:
        try:
            made += [folder for folder in (root, *root.parents) if not folder.exists()]
            root.mkdir(parents=True, exist_ok=True)
            return (root / name).open("a")
        except (FileNotFoundError, FileExistsError):
            tries -= 1
            if not tries:
                raise


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """A redirect handler that refuses to leave https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if newurl.partition(":")[0] not in SCHEMES:
            raise UserError(f"{req.full_url} leads to {newurl}, which is not https", "", BAD_DATA)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, archive: Path, wanted: str, why: str) -> bytes:
    """Download to memory, check the md5, then write the file atomically; a killed download leaves no file."""
    if url.partition(":")[0] not in SCHEMES:
        raise UserError(f"{url} is not https", "", BAD_DATA)
    print(f"downloading {url}", file=sys.stderr)
    try:
        opener = urllib.request.build_opener(_SameScheme)
        with opener.open(url, timeout=START_S) as response:
            response.fp.raw._sock.settimeout(STALL_S)  # urllib has one timeout for everything and hides its socket
            content = response.read(LARGEST)
    except UserError:
        raise
    except Exception as problem:  # urllib, http.client, socket and ssl raise many types
        raise UserError(f"{why}; and {url} could not be downloaded ({first_line(problem)})", "", BAD_DATA) from problem
    if (found := md5(content)) != wanted:
        looks = " (it looks like an HTML page)" if content[:64].lstrip()[:1] == b"<" else ""
        raise UserError(f"{why}; {url} gave md5 {found}, not {wanted}{looks}", "", BAD_DATA)
    write_bytes(archive, content, remedy=ELSEWHERE)
    return content


def _unpack(packed: bytes, archive: Path, folder: Path, inside: str, files: dict[str, str]) -> dict[str, bytes]:
    """Unpack only the named files, each checked by md5 and written atomically; other members are ignored."""
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            for name, wanted in files.items():
                member = tar.extractfile(f"{inside}/{name}")
                content = member.read() if member else b""
                if (found := md5(content)) != wanted:
                    raise UserError(f"{archive}: {name} in it has md5 {found}, not {wanted}", "", BAD_DATA)
                write_bytes(folder / name, content, remedy=ELSEWHERE)
                contents[name] = content
    except (tarfile.TarError, KeyError, EOFError) as problem:
        raise UserError(f"{archive} cannot be unpacked ({problem})", "", BAD_DATA) from problem
    return contents
