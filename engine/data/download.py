"""The files of a data set, on disk or fetched over https: compared with their md5, unpacked, by one process at a time.

What is in them: cifar.py, mnist.py. The files, their addresses and their md5 are torchvision's, which itself tries http where
https fails.
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
from engine.system.said import notice

START_S = 5  # until a download starts, per address; several may be tried within the 10 s allowed
STALL_S = 60  # of silence in the middle of one: what has come is worth waiting for
LARGEST = 1 << 30  # bytes; the archives have 170 million
SCHEMES = ("https",)
ELSEWHERE = "point --data at a folder that can be written, or take --dataset digits"


def obtain(source: Any, root: Path, files: dict[str, str]) -> dict[str, bytes]:
    """The bytes of `files` (names and md5) of a data set of torchvision's, fetched first if they are not under `root`.

    Raises:
        UserError: exit 4, naming the file, and both hashes where they differ; exit 6 if there is no room for it.
    """
    found = _on_disk(root / source.base_folder, files)
    return fetch(source, root, files) if isinstance(found, str) else found


def _on_disk(folder: Path, files: dict[str, str]) -> dict[str, bytes] | str:
    """The bytes of a set's files by name, or what is wrong with the first that is not whole."""
    contents = {}
    for name, wanted in files.items():
        found = _whole(folder / name, wanted)
        if isinstance(found, str):
            return found
        contents[name] = found
    return contents


def _whole(path: Path, wanted: str) -> bytes | str:
    """A file's bytes, or, in words, that it is missing or has another md5 (which tells damage, not intent).

    Raises:
        UserError: exit 4 if it is there and cannot be read.
    """
    content = held(path)
    if content is None:
        return f"{path} is missing"
    found = md5(content)
    return content if found == wanted else f"{path} is damaged: md5 {found}, not {wanted}"


def held(path: Path) -> bytes | None:
    """A file's bytes; None if it is not there.

    Raises:
        UserError: exit 4 if it is there and cannot be read.
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
    """Unpack the archive under `root`, downloading it first where it is missing or damaged; one process at a time.

    Returns:
        the bytes of `files`, by name.

    Raises:
        UserError: exit 4; exit 6 if there is no room for it.
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
    """A file by itself, from the first address that gives it; one process at a time.

    Args:
        why: it is fetched, in words.

    Raises:
        UserError: exit 4, with `remedy`; exit 6 if there is no room for it.
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
    """Wait for the lock of a folder, made if it is missing; the kernel lets go of it however a process ends.

    Afterwards the lock is gone, and so is the folder where it was made here and nothing, and nobody, came into it.
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
            pass  # a file system without locks: two downloads at once then spoil each other, which the md5 tells

    lock = locked(lambda: _lock_file(root, name, made), wait)
    try:
        yield
    finally:
        with lock, contextlib.suppress(OSError):
            (root / name).unlink()  # while it is still ours
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # refused where anything is in it


def _lock_file(root: Path, name: str, made: list[Path]) -> TextIO:
    """Open; again, where another process takes away just now the folder that it had made. Adds to `made` what is."""
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
    """Redirects may not lead from https to anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if newurl.partition(":")[0] not in SCHEMES:
            raise UserError(f"{req.full_url} leads to {newurl}, which is not https", "", BAD_DATA)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, archive: Path, wanted: str, why: str) -> bytes:
    """To memory, then compared, then written whole: a killed download leaves nothing that looks whole."""
    if url.partition(":")[0] not in SCHEMES:
        raise UserError(f"{url} is not https", "", BAD_DATA)
    print(f"downloading {url}", file=sys.stderr)
    try:
        opener = urllib.request.build_opener(_SameScheme)
        with opener.open(url, timeout=START_S) as response:
            response.fp.raw._sock.settimeout(STALL_S)  # urllib knows one timeout for all, and shows no socket
            content = response.read(LARGEST)
    except UserError:
        raise
    except Exception as problem:  # urllib, http.client, socket and ssl raise many kinds; all mean: no pictures
        raise UserError(f"{why}; and {url} could not be downloaded ({first_line(problem)})", "", BAD_DATA) from problem
    if (found := md5(content)) != wanted:
        looks = " (it looks like an HTML page)" if content[:64].lstrip()[:1] == b"<" else ""
        raise UserError(f"{why}; {url} gave md5 {found}, not {wanted}{looks}", "", BAD_DATA)
    write_bytes(archive, content, remedy=ELSEWHERE)
    return content


def _unpack(packed: bytes, archive: Path, folder: Path, inside: str, files: dict[str, str]) -> dict[str, bytes]:
    """Only the files that are read, each compared and written whole: no other name in the archive counts."""
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
