"""A refused command prints one error and one hint, and changes no file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files except run folders'."""
    files = (p for p in folder.rglob("*") if p.is_file() and "runs" not in p.relative_to(folder).parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def refused(done: SimpleNamespace, code: int, *words: str) -> None:
    """Check for one error line, then one hint line, and nothing on stdout."""
    assert done.code == code, done.err
    starts = [line.split(" ")[0] for line in done.err.splitlines()]
    assert starts[-2:] == ["error:", "hint:"], done.err
    assert starts.count("error:") == starts.count("hint:") == 1, done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert all(word in done.err for word in words), done.err
