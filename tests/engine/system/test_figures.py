"""Figures: without matplotlib, a command whose result is a picture ends at once, and says what to install."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.system import figures
from tests.conftest import assert_refused
from tests.tools.house import sources, tree


@pytest.mark.parametrize(
    ("module", "argv"), [("scripts.curves", ("dorefa",)), ("scripts.histograms", ("gone.pth", "--save", "made/a.png"))]
)
def test_a_picture_needs_matplotlib(
    module: str, argv: tuple[str, ...], command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = command(module, *argv)
    assert_refused(done, 2, "matplotlib is not installed")
    assert done.err.splitlines()[-1] == "hint: pip install matplotlib bokeh"
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_figure_is_drawn_into_bytes_and_closed(kind: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    pyplot = figures.pyplot()
    open_before = pyplot.get_fignums()
    assert figures.drawn(pyplot.subplots()[0], 20, kind).startswith(start)
    assert pyplot.get_fignums() == open_before


def test_only_one_module_imports_pyplot() -> None:
    """It chooses where figures are drawn before that."""
    found = {
        name
        for name in sources()
        for node in ast.walk(tree(name))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "pyplot" in ast.unparse(node)
    }
    assert found == {figures.__name__}
