"""The web page as a whole: what it shows, that it loads nothing, and that words of files stay words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import USAGE, UserError
from engine.tasks.score import MAP
from scripts.page import curves, layers, make, overview, scatter
from scripts.page.entry import Entry, Layer, distinct
from tests.tools.page import Page, entry

EVIL = "<script>alert(1)</script>"


def test_the_table_is_sorted_by_numbers() -> None:
    entries = [entry("a", 9.5), entry("b", 100.0, 8_000, epochs="10+6"), entry("c", None)]
    table = overview.table(entries)
    data = table.source.data
    assert data["score"][:2] == [9.5, 100.0]
    assert math.isnan(data["score"][2])
    assert data["size"] == [10_000, 1_000, 10_000]
    assert data["compression"][1:] == [90.0, 0.0]
    assert data["loss"][1] == -90.5
    assert (data["epochs"], data["epochs_text"]) == ([6, 16, 6], ["6", "10+6", "6"])
    assert all(column.sortable for column in table.columns)
    titles = [column.title for column in table.columns]
    assert {"accuracy (%)", "size (bytes)", "loss (points)", "compression (%)"} <= set(titles)
    assert not {"packed (bytes)", "time (ms)"} & set(titles)
    near = overview.table([entry("a", 90.0), entry("b", 90.001), entry("c", 89.996, 80_001)]).source.data
    assert [str(value) for value in near["loss"]] == ["nan", "0.0", "0.0"]
    assert near["loss_text"] == ["-", "+0.00", "+0.00"]
    assert data["loss_text"] == ["-", "-90.50", "-"]
    assert str(near["compression"][2]) == "0.0"
    timed = overview.table([entry(packed_bytes=900, milliseconds=0.25)])
    assert {"packed (bytes)", "time (ms)"} <= {column.title for column in timed.columns}


def test_points_tell_their_names_and_one_method_has_one_colour() -> None:
    entries = [
        entry("a", milliseconds=1.0, packed_bytes=7),
        entry("b", 80.0, 8_000, method="DoReFa", milliseconds=0.5, packed_bytes=7),
        entry("c", 70.0, 16_000, method="DoReFa", milliseconds=0.7, packed_bytes=7),
        entry("d", None),
    ]
    plot = scatter.by_size(entries)
    points = [
        (name, x, y, drawn.glyph.fill_color)
        for drawn in plot.hover.renderers
        for name, x, y in zip(*(drawn.data_source.data[key] for key in ("name", "x", "y")), strict=True)
    ]
    assert points == [
        ("1. a", 10_000, 90.0, "#1f77b4"),
        ("2. b", 1_000, 80.0, "#2ca02c"),
        ("3. c", 2_000, 70.0, "#2ca02c"),
    ]
    (star,) = [drawn.data_source.data for drawn in plot.renderers if drawn.glyph.marker == "star"]
    assert (star["x"], star["y"]) == ([10_000], [90.0])
    assert plot.xaxis.axis_label == "size in bytes (stored bits / 8), log scale"
    assert plot.yaxis.axis_label == "accuracy in %"
    timed = scatter.by_time(entries)
    assert timed is not None
    assert timed.xaxis.axis_label == "time for one picture in ms"
    assert scatter.by_time([entry("a")]) is None


def test_methods_from_elsewhere_are_told_apart() -> None:
    entries = [entry(str(number), method=f"own{number}") for number in range(14)]
    curve = curves.scores(entries)
    assert curve is not None
    points = [scatter.by_size(entries).hover.renderers, curve.hover.renderers]
    for drawn in points:
        assert len({(each.glyph.marker, each.glyph.fill_color) for each in drawn}) == 14
    assert {each.glyph.marker for each in scatter.by_size(entries[:4]).hover.renderers} == {"circle"}


def test_cells_hold_channels_and_bits_of_each_layer() -> None:
    known = entry("a")
    other = entry("b", layers=(Layer("block1.conv", 8, None),))
    (cells,) = {
        id(drawn.data_source): drawn.data_source.data for drawn in layers.kept([known, other]).renderers
    }.values()
    assert list(zip(cells["file"], cells["layer"], cells["text"], strict=True)) == [
        ("a", "block1.conv", "8"), ("a", "block2.conv", "6"), ("b", "block1.conv", "8"),
    ]  # fmt: skip
    assert cells["colour"][:2] == [100, 75]
    assert cells["channels"] == ["8 of 8 kept (100 %)", "6 of 8 kept (75 %)", "8; before pruning: not known"]
    bits = layers.bits([known, other])
    assert bits is not None
    assert bits.renderers[0].data_source.data["text"] == ["32/32", "4/8"]
    assert layers.bits([other]) is None


def test_curves_leave_out_epochs_that_were_not_judged() -> None:
    gap = entry("b", curve=({"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0, "val_mAP": 30.0}))
    plot = curves.scores([entry("a"), gap])
    assert plot is not None
    lines = [drawn.data_source.data for drawn in plot.renderers[::2]]
    assert [(line["x"], line["y"]) for line in lines] == [([1, 2], [81.0, 82.0]), ([2], [30.0])]
    assert curves.losses([entry("c", curve=())]) is None


def test_curves_say_which_pictures_judged() -> None:
    """A checkpoint that was judged on test pictures at its end may have a curve of held-out ones."""
    held_out = entry("b", curve=({"epoch": 1, "train_loss": 2.0, "val_accuracy": 70.0},))
    detector = entry("c", score=MAP, curve=({"epoch": 1, "train_loss": 2.0, "val_mAP": 30.0},))

    def told(entries: list[Entry], drawn: Callable[[list[Entry]], Any] = curves.scores) -> list[str]:
        plot = drawn(entries)
        names = [item.label.value for item in plot.legend.items]
        assert names == [line.data_source.data["name"][0] for line in plot.renderers[::2]]
        return names

    assert told([entry("a"), held_out]) == ["a (test)", "b (val)"]
    assert told([entry("a"), held_out, detector]) == ["a (test accuracy)", "b (val accuracy)", "c (val mAP)"]
    assert told([entry("a"), held_out], curves.losses) == ["a", "b"]
    pictures = "The files were evaluated on different pictures, digits (test), digits (val): their heights"
    scores = "The files have different scores, accuracy, mAP: their heights"
    head, _, tail = Page(make.html([entry("a"), held_out, detector], "x")).text.rpartition("Learning curves")
    assert (pictures in head, pictures in tail) == (False, True)
    assert (scores in head, scores in tail) == (True, True)
    alike = Page(make.html([entry("a"), entry("b")], "x")).text
    assert "cannot be compared" not in alike


def test_the_page_says_where_each_file_comes_from_and_what_it_lacks() -> None:
    silent = entry(
        "b", None, curve=(), no_curve="its last stage (prune) has no epochs", provenance="# 1. b\npython -m x"
    )
    page = Page(make.html([entry("a"), silent], "Digits", to_measure="give --measure"))
    assert "Baseline: a (float)" in page.text
    assert "# 1. b\npython -m x" in page.text
    assert "b: its last stage (prune) has no epochs" in page.text
    unknown = Page(make.html([entry("a"), entry("b", no_before="--arch my.py:net: OSError: gone")], "x"))
    assert "The channels before pruning are not known:\nb: --arch my.py:net: OSError: gone" in unknown.text
    assert "before pruning are not known" not in page.text
    assert "No time was measured. give --measure" in page.text
    assert "Not evaluated, so without a point: b." in page.text
    assert {"DataTable", "HoverTool", "Figure"} <= set(page.models)
    assert "The star is the baseline." in page.text
    assert "The star" not in Page(make.html([silent, entry("a")], "Digits")).text
    mixed = make.html([entry("a"), entry("b", dataset="CIFAR-10")], "x")
    assert "evaluated on different pictures, digits (test), CIFAR-10 (test)" in mixed


def test_the_page_loads_nothing() -> None:
    page = Page(make.html([entry("a")], "Digits"))
    attributes = [each for tags in page.tags.values() for each in tags]
    assert not any({"src", "srcset", "data", "action"} & set(each) for each in attributes)
    assert {each["href"] for each in attributes if "href" in each} == {
        "#table", "#size", "#time", "#layers", "#curves", "#provenance",
    }  # fmt: skip
    assert not {"link", "iframe", "object", "embed", "img"} & set(page.tags)
    (policy,) = [each["content"] for each in page.tags["meta"] if "http-equiv" in each]
    assert policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*", policy)  # what JavaScript asks for later is refused, too


def test_words_of_files_are_not_markup() -> None:
    """A formula between dollars would make Bokeh fetch what sets it, were it a title or a label."""
    names = {"type": f"$$x$$ {EVIL}", "dataset": EVIL, "remarks": f"'{EVIL}\"", "file": EVIL, "epochs": EVIL}
    odd = entry(f"{EVIL}'\\", network=EVIL, no_curve=EVIL, provenance=EVIL, method=EVIL, **names)
    odd2 = entry("b", curve=(), no_curve=EVIL)
    content = make.html([odd, odd2], EVIL, EVIL, EVIL, [EVIL])
    assert EVIL not in content
    page = Page(content)
    assert page.text.count(EVIL) >= 8
    (table,) = [each for each in page.models["DataTable"] if each.get("name") == "table"]
    assert f"{EVIL}'\\" in str(table["source"]) or f"{EVIL}'\\\\" in str(table["source"])
    assert {"TeX", "MathML", "Div"}.isdisjoint(page.models)
    plain = Page(make.html([entry("a"), odd2], "x"))
    assert len(page.tags["script"]) == len(plain.tags["script"])


def test_a_page_without_any_accuracy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody has evaluated a, b, so the page would show no accuracy") as fault:
        make.write([entry("a", None), entry("b", None)], tmp_path / "p.html", "x")
    assert fault.value.code == USAGE
    assert not list(tmp_path.iterdir())


def test_files_of_one_name_are_told_apart() -> None:
    same = [entry("a", file="x/a.pth"), entry("a", file="y/a.pth"), entry("b"), entry("a", file="x/a.pth")]
    assert [each.name for each in distinct(same)] == ["x/a.pth (1)", "y/a.pth", "b", "x/a.pth (4)"]
    numbered = [entry("a (2)", file="a (2)"), entry("a", file="a"), entry("a", file="a")]
    assert [each.name for each in distinct(numbered)] == ["a (2)", "a (3)", "a (4)"]
