"""CIFAR-10 and CIFAR-100: fetched over https, compared with their md5, read without running what their pickles name.

The files, their addresses and their md5 are torchvision's. Its own reader is not used: it unpickles whatever has the
right md5, which can be forged, and it tries http where https fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import pickle
import shutil
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import BAD_DATA, UserError
from engine.files import write_bytes

TIMEOUT_S = 5  # per attempt; several addresses may be tried within the 10 s allowed
SCHEMES = ("https",)
NAMES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
CLASSES = {"cifar10": 10, "cifar100": 100}
PICTURES = 60_000
_ARRAYS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),  # as NumPy 1 called it, and so do the files
    ("numpy._core.multiarray", "_reconstruct"),
}

Part = tuple[np.ndarray, list[int]]


class _Arrays(pickle.Unpickler):
    """Lists, dicts, text and arrays; anything else that a pickle names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def read(kind: str, root: Path) -> tuple[Part, Part]:
    """Both parts of a set: uint8 (N, 32, 32, 3) and labels; fetched first if they are not under `root`.

    Raises:
        UserError: exit 4, naming the file, and both hashes where they differ.
    """
    import torchvision

    source = getattr(torchvision.datasets, NAMES[kind])
    parts = {"train": dict(source.train_list), "test": dict(source.test_list)}
    files = {name: md5 for part in parts.values() for name, md5 in part.items()}
    folder = root / source.base_folder
    if fault(folder, files):
        fetch(source, root, files)
    train, test = (_part([folder / name for name in part], part, CLASSES[kind]) for part in parts.values())
    return train, test


def fault(folder: Path, files: dict[str, str]) -> str | None:
    """What is wrong with a set on disk, in words: the first file that is missing or has another md5."""
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if (found := md5(path)) != wanted:
            return f"{path} is damaged: md5 {found}, not {wanted}"
    return None


def md5(path: Path) -> str:
    """Of a file's bytes. It tells damage, not intent: what is read is checked again."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def fetch(source: Any, root: Path, files: dict[str, str]) -> None:
    """Unpack the archive under `root`, downloading it first where it is missing or damaged; one process at a time.

    Raises:
        UserError: exit 4.
    """
    folder, archive = root / source.base_folder, root / source.filename
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f".{source.filename}.lock"):
            before = fault(folder, files)
            if not before:
                return  # another process has fetched it while this one waited
            if not archive.is_file():
                _download(source.url, archive, source.tgz_md5, before)
            elif (found := md5(archive)) != source.tgz_md5:
                damaged = f"{archive} is damaged: md5 {found}, not {source.tgz_md5}"
                _download(source.url, archive, source.tgz_md5, damaged)
            _unpack(archive, folder, source.base_folder, files)
    except UserError as problem:
        raise UserError(str(problem), _ways_out(source, root), BAD_DATA) from problem
    except OSError as problem:
        raise UserError(f"{root}: {problem.strerror or problem}", _ways_out(source, root), BAD_DATA) from problem


def _ways_out(source: Any, root: Path) -> str:
    return f"put {source.filename} under {root}/, point --data at a folder that has it, or take --dataset digits"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for the lock; the kernel lets go of it when a process ends, however it ends."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("notice: another process is fetching these pictures; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: two downloads at once then spoil each other, which the md5 tells
        yield


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Redirects may not lead from https to anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if newurl.partition(":")[0] not in SCHEMES:
            raise UserError(f"{req.full_url} leads to {newurl}, which is not https", "", BAD_DATA)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, archive: Path, wanted: str, why: str) -> None:
    """To a sibling file, then compared, then renamed: a killed download leaves nothing that looks whole."""
    partial = archive.with_name(f".{archive.name}.part")
    if url.partition(":")[0] not in SCHEMES:
        raise UserError(f"{url} is not https", "", BAD_DATA)
    print(f"downloading {url}", file=sys.stderr)
    try:
        opener = urllib.request.build_opener(_SameScheme)
        with opener.open(url, timeout=TIMEOUT_S) as response, partial.open("wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)
        if (found := md5(partial)) != wanted:
            with partial.open("rb") as file:
                page = file.read(64).lstrip()[:1] == b"<"
            looks = " (it looks like an HTML page)" if page else ""
            raise UserError(f"{why}; {url} gave md5 {found}, not {wanted}{looks}", "", BAD_DATA)
        os.replace(partial, archive)
    except UserError:
        raise
    except Exception as problem:  # urllib, http.client, socket and ssl raise many kinds; all mean: no pictures
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UserError(f"{why}; and {url} could not be downloaded ({reason})", "", BAD_DATA) from problem
    finally:
        partial.unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path, inside: str, files: dict[str, str]) -> None:
    """Only the files that are read, each compared and written whole: no other name in the archive counts."""
    try:
        with tarfile.open(archive) as tar:
            for name, wanted in files.items():
                member = tar.extractfile(f"{inside}/{name}")
                content = member.read() if member else b""
                if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != wanted:
                    raise UserError(f"{archive}: {name} in it has md5 {found}, not {wanted}", "", BAD_DATA)
                write_bytes(folder / name, content)
    except (tarfile.TarError, KeyError, EOFError) as problem:
        raise UserError(f"{archive} cannot be unpacked ({problem})", "", BAD_DATA) from problem


def _part(paths: list[Path], wanted: dict[str, str], classes: int) -> Part:
    images, labels = [], []
    for path in paths:
        content = path.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != wanted[path.name]:
            raise UserError(f"{path} has changed while it was read", "try again", BAD_DATA)
        pixels, numbers = batch(path, content, classes)
        images.append(pixels)
        labels += numbers
    return np.concatenate(images), labels


def batch(path: Path, content: bytes, classes: int) -> Part:
    """One batch file: uint8 (N, 32, 32, 3) and N labels below `classes`.

    Raises:
        UserError: exit 4 for anything that is not that, in a pickle or in what it holds.
    """
    try:
        held = _Arrays(io.BytesIO(content), encoding="latin1").load()
        pixels, labels = held["data"], held.get("labels", held.get("fine_labels"))
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
            raise ValueError("its pictures are not 3 x 32 x 32 bytes each")
        if not all(type(label) is int and 0 <= label < classes for label in labels):
            raise ValueError(f"its labels are not whole numbers below {classes}")
    except Exception as problem:  # a forged pickle can raise nearly anything
        raise UserError(
            f"{path} cannot be read ({str(problem)[:200]})", "delete its folder and fetch the set again", BAD_DATA
        ) from problem
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
