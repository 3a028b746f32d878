"""Where a checkpoint comes from: the command, the versions, the seed and the file it started from."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGE = "model-compression"


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from: the command line, its seed, and the file it started from, if any."""

    command: tuple[str, ...]
    seed: int
    parent: Path | None = None
    parent_sha256: str | None = None


@dataclass(frozen=True)
class Provenance:
    """An origin as stored in a file: without absolute paths and times, so that equal runs write equal bytes."""

    command: str = "unknown"
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    parent: str | None = None
    parent_sha256: str | None = None


def provenance(origin: Origin) -> Provenance:
    """Return the origin to store in a file, with the installed versions."""
    return Provenance(
        command=shlex.join(map(_relative, origin.command)),
        versions=versions(),
        seed=origin.seed,
        parent=_relative(str(origin.parent)) if origin.parent else None,
        parent_sha256=origin.parent_sha256,
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that a run's results depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": _installed("torchvision"),
        PACKAGE: _installed(PACKAGE),
    }


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _relative(text: str) -> str:
    """Make an absolute path relative to the working folder; outside of it, keep only the last part."""
    flag, equals, value = text.partition("=")
    if flag.startswith("-") and equals:
        return f"{flag}={_relative(value)}"
    if not text.startswith("/"):
        return text
    relative = os.path.relpath(text)
    return Path(text).name if relative.startswith("..") else relative
