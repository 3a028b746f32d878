"""The library of the loops has every instruction set that the compiler knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.system import compiled
from engine.system.compiled import CACHE, X86
from models.fused import library


def test_every_set_that_the_compiler_knows_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether this processor has it or not: a fault in loops that few processors run is found everywhere."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    try:
        compiler = compiled.system_compiler()
    except compiled.Unavailable as fault:
        pytest.skip(str(fault))
    sources = library.SOURCES
    unknown = [name for name, flags in sources.sets.items() if not compiled._knows(compiler, flags)]
    sources.build()
    said = capsys.readouterr().err
    assert "cannot compile" not in said
    assert said.count("does not know") == bool(unknown)


def test_every_source_is_in_the_library() -> None:
    files = {path.stem for path in library.SOURCES.folder.glob("*.cpp")}
    assert files == {library.SOURCES.main, "plain", *(library.SOURCES.sets if X86 else ("avx2", "avx512"))}
