"""The pages of docs/methods: every quantizer has one, and papers, tests, figures, pictures and commands on them are true."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.layers.quantizers import kinds
from scripts.drawing import numbers
from tests.tools.readme import MODULES, ROOT, blocks, lines, options, shortened

PAGES = ROOT / "docs" / "methods"
NAMES = sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "README")
SECTIONS = [
    "Commands", "Formula", "Gradient", "Edge cases", "When to take it", "What it cost and gained here", "See also",
]  # fmt: skip
FOLDERS = {
    "digits": "digits", "Fashion-MNIST": "fashion_mnist", "CIFAR-10 (JPEG copy)": "cifar10-jpeg",
    "JPEG copy, 4 epochs": "cifar10-jpeg-4-epochs",
}  # fmt: skip
ROWS = {
    "float": "nin",
    **{bits: bits.lower() for bits in ("W8A8", "W4A8", "W4A4", "W2A2")},
    **{f"LSQ {bits}": f"lsq_{bits.lower()}" for bits in ("W4A4", "W2A2")},
    "ternary weights, float inputs (WtA32)": "wta32", "ternary weights, binary inputs (WtA1)": "wtab",
    "the same without scale": "wtab_no_scale", "pruned 50 %, then WtA1": "prune50_wtab",
    "W1A32": "wba32", "W1A1": "wbab", "W1A1 without scale": "wbab_no_scale",
    "INT8 asymmetric": "int8_q1_fold0", "INT8 asymmetric, folded": "int8_q1_fold1",
    "INT8 symmetric": "int8_q0_fold0", "INT8 symmetric, folded": "int8_q0_fold1",
    **{method: f"ptq_{method}" for method in ("minmax", "percentile", "mse", "kl")},
    "sparse, `--s 0.0001`": "sparse", "pruned 50 %, before BN is re-estimated": "prune50_raw",
    "pruned 50 %, BN re-estimated": "prune50", "refined": "prune50_refine",
    "to multiples of 8, refined": "prune50_x8_refine", "the same widths from scratch (control)": "prune50_scratch",
}  # fmt: skip
"""The rows of the ladder that tables of the pages show, by what they are called there."""
WITHOUT_FIGURES = {"folding"}
"""Pages that quote no row of the ladder."""


def text(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def tables(page: str) -> list[list[dict[str, str]]]:
    """Every table of a page, a dict by column for each row."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", page, re.M):
        head, _, *rows = ([cell.strip() for cell in line.split(" | ")] for line in block.splitlines())
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return [[{key.strip("| "): cell.strip("| ") for key, cell in row.items()} for row in rows] for rows in found]


def page_of(quantizer: str) -> str:
    """The first page of the index for a quantizer."""
    rows = [row for row in tables(text("README"))[0] if row["quantizer"] == f"`{quantizer}`"]
    assert rows, f"docs/methods/README.md has no row for the quantizer `{quantizer}`: give it a page and a row"
    return re.findall(r"\((\w+)\.md\)", rows[0]["page"])[0]


@pytest.mark.parametrize("quantizer", numbers.names())
def test_every_quantizer_has_a_page_with_its_papers_and_its_picture(quantizer: str) -> None:
    page = text(page_of(quantizer))
    source = Path(str(kinds.lookup(quantizer).weight.__code__.co_filename))
    assert f"models/layers/quantizers/{source.name}" in page
    papers = set(re.findall(r"\d{4}\.\d{5}", source.read_text(encoding="utf-8")))
    assert papers
    assert papers <= set(re.findall(r"\d{4}\.\d{5}", page))
    assert f"pictures/methods/{quantizer}.png" in page


def test_the_index_names_every_page() -> None:
    assert sorted(re.findall(r"^\| \[(\w+)\.md\]\(\1\.md\)", text("README"), re.M)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_built_alike(name: str) -> None:
    heads = re.findall(r"^## (.*)$", text(name), re.M)
    assert [head.replace("Pseudo-gradient", "Gradient") for head in heads] == SECTIONS


@pytest.mark.parametrize("name", [*NAMES, "README"])
def test_what_pages_point_at_is_there(name: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", text(name))
    files = re.findall(r"`((?:models|quant|prune|bn_merge)/[\w/]+\.py)`", text(name))
    assert targets
    assert files or name == "README"
    for target in targets:
        assert target.startswith("https://") or (PAGES / target).exists(), target
    for path in files:
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_that_pages_name_exist(name: str) -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text(name))
    assert len(named) >= 4
    for file, test in named:
        found = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
        assert any(f"def {test}(" in source for source in found), f"{file}::{test}"


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_the_results(name: str) -> None:
    """Accuracy, size and seconds of every row of the ladder; "not run" where there is no such file."""
    compared = 0
    for row in (row for rows in tables(text(name)) for row in rows if set(row) & set(FOLDERS)):
        step = ROWS[next(iter(row.values()))]
        for column, cell in row.items():
            path = ROOT / "results" / FOLDERS.get(column, "digits") / f"{step}-s1.json"
            if cell == "not run":
                assert not path.exists(), path
                continue
            compared += column in FOLDERS
            found = json.loads(path.read_text(encoding="utf-8"))
            if column in FOLDERS:
                assert cell == f"{found['accuracy']:.2f} %", (step, column)
            elif column.startswith("size"):
                assert cell == f"{found['size_bits'] / 8e6:.4f}", step
            elif column.startswith("MACs"):
                assert cell == f"{found['macs']:,}", step
            elif column.endswith(", s") and cell != "-":
                assert cell == f"{found['seconds'][step]:.0f}", step
    assert (compared == 0) == (name in WITHOUT_FIGURES), f"{name}: {compared} accuracies of the ladder"


@pytest.mark.parametrize("name", NAMES)
def test_times_stand_in_tables_that_are_compared_or_on_the_page_of_speeds(name: str) -> None:
    """Nothing compares a time in a sentence with what was measured, so it would stay when the measurement moves."""
    prose = re.sub(r"^```.*?^```$|^\|.*?$|\$.*?\$", "", text(name), flags=re.S | re.M)
    assert re.findall(r"\d (?:ms|s|seconds)\b", prose) == []


@pytest.mark.parametrize(
    "quantizer", ["dorefa", *(pytest.param(n, marks=pytest.mark.slow) for n in ("lsq", "ternary"))]
)
def test_a_picture_shows_the_numbers_of_the_modules(quantizer: str) -> None:
    pytest.importorskip("matplotlib")
    from scripts.drawing import curves

    figure = curves.figure(quantizer, 3)
    top, *_ = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in top.lines}
    first = numbers.weights(quantizer, 3)[0]
    assert any(np.array_equal(values, first.value) for values in drawn.values())
    slopes = [np.asarray(line.get_ydata()) for line in figure.axes[2].lines]
    assert any(np.array_equal(values, first.slope) for values in slopes)
    assert all(axis.get_xlabel() for axis in figure.axes[-2:])
    assert all(axis.get_ylabel() for axis in figure.axes)


@pytest.mark.parametrize("name", [*NAMES, "README"])
def test_the_commands_of_a_page_run(name: str, refined: Callable[..., SimpleNamespace]) -> None:
    pytest.importorskip("matplotlib")
    shown = [block for block in blocks(PAGES / f"{name}.md") if block.language == "sh"]
    assert len(shown) == 1
    assert shown[0].marker in ("method", "curves")
    for module, argv, _ in lines(shown[0]):
        done = refined(MODULES.get(module, module), *shortened(module, argv))
        assert done.code == 0, f"python -m {module} {' '.join(argv)}\n{done.err}"
        if "--save" in options(module):
            assert Path(done.path).is_file()
