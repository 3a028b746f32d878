"""The ladder of a detector: mAP in the place of accuracy, and the rows that fit."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.data.detection import scenes
from engine.errors import UserError
from scripts.ladder import fingerprint, fitting, result, rows, runner, table
from scripts.ladder.result import Done
from tests.conftest import assert_refused
from tests.tools import boxed
from tests.tools.children import Fork
from tests.tools.ladder import options
from tests.tools.own_detector import NETWORK, OWN

pytest.importorskip("pycocotools")

SSDLITE, SSD300 = "torchvision:ssdlite320_mobilenet_v3_large", "torchvision:ssd300_vgg16"
FLAGS = (
    "--dataset", "scenes", "--image_size", "64", "--epochs", "1", "--cpu", "--precision", "fp32", "--threads", "1",
)  # fmt: skip
OF_CELLS = (*OWN, "--core", "trunk,top", *FLAGS)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    """Use few and small scenes and a user's detector, and run the steps in forks."""
    whole = scenes.read
    monkeypatch.setattr(scenes, "read", lambda size: whole(size, (48, 12)))
    forking = SimpleNamespace(Popen=Fork, run=subprocess.run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(runner, "subprocess", forking)
    Path("cells.py").write_text(NETWORK)


MORE = pytest.param(("prune50", "prune50_raw", "wbab", "int8_q0_fold1"), marks=pytest.mark.slow)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("more", [(), MORE], ids=["few rows", "more rows"])
def test_the_ladder_of_a_detector_shows_map(more: tuple[str, ...], command: Callable) -> None:
    pytest.importorskip("bokeh")
    asked = ("nin", "ptq_mse", "prune50_scratch", *more)
    done = command("scripts.results", *OF_CELLS, "--rows", *asked, "--html", "page.html")
    assert done.code == 0, done.err
    assert (
        "notice: left out prune50_scratch: only networks of this toolkit can be built afresh with given widths, not cells.py:net\n"
        in done.err
    )
    assert done.path == "results/scenes-net/table.md"
    folder = Path("results/scenes-net")
    text = (folder / "table.md").read_text()
    assert text.startswith("| row | epochs | n | mAP | MACs |")
    assert "12 test pictures of digit scenes (composed); mAP of the last epoch; " in text
    assert "Compression and loss (points) are against net. " in text
    assert "accuracy" not in text + done.out
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*-s1.json")}
    assert sorted(found) == sorted(f"{name}-s1" for name in asked if name != "prune50_scratch")
    for each in found.values():
        assert (each["task"], "accuracy" in each, type(each["mAP"])) == ("detection", False, float)
    first = found["nin-s1"]
    assert first["mAP"] == first["curve"][-1]["test_mAP"]
    assert all("--arch cells.py:net" in line for each in found.values() for line in each["commands"])
    assert ["--core trunk,top" in line for line in found["ptq_mse-s1"]["commands"]] == [True, False]
    assert json.loads((folder / "ladder.json").read_text())["--core"] == "trunk,top"
    assert {path.name for path in folder.glob("*.png")} == {"curves.png", "headline.png", "size.png"}, "no cfg to draw"
    shown = Path("page.html").read_text()
    assert '"axis_label":"mAP in %"' in shown
    assert not re.search("accuracy", shown[shown.rindex("<h1>") :], re.I)

    listed = command("scripts.results", *OF_CELLS, "--table", "--json", "--rows", "nin")
    assert json.loads(listed.out)["rows"] == [{"row": "nin", "seed": 1, "status": "done", "mAP": first["mAP"]}]
    report = command("scripts.report", folder / "nin-s1.json", folder / "ptq_mse-s1.json", "--save", "t.md")
    assert report.code == 0, report.err
    assert re.search(r"\| mAP +\|", Path("t.md").read_text())
    assert json.loads(Path("t.json").read_text())[0]["mAP"] == pytest.approx(first["mAP"], abs=1e-4)

    none = command("scripts.results", *OF_CELLS, "--rows", "prune50_scratch")
    assert_refused(none, 2, "cells.py:net fills none of these rows: prune50_scratch: ")
    other = command("scripts.results", *OF_CELLS, "--core", "trunk", "--rows", "nin")
    assert other.code == 2


FOLDERS = {"coco": boxed.coco_folder, "yolo": boxed.yolo_folder}


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", FOLDERS)
def test_the_ladder_of_a_folder_with_boxes(name: str, command: Callable) -> None:
    FOLDERS[name](Path("boxes"))
    flags = ("--dataset", name, "--data", "boxes", "--image_size", "32", "--num_workers", "0", *OF_CELLS[-7:])
    done = command("scripts.results", *OF_CELLS[:4], *flags, "--rows", "nin", "ptq_mse", "prune50")
    assert done.code == 0, done.err
    assert done.path == "results/boxes-net/table.md"
    text = Path(done.path).read_text()
    assert "| INT8 without training, mse |" in text
    assert "4 test pictures of boxes; mAP of the last epoch; " in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--dataset", "scenes"), "--dataset scenes has boxes, but nin is not a detector"),
        (("--dataset", "digits", "--arch", SSDLITE), f"{SSDLITE} is a detector, but digits has no boxes"),
        (("--dataset", "digits", *OWN, "--core", "top"), "cells.py:net is a detector, but digits has no boxes"),
        (("--dataset", "scenes", "--arch", "torchvision:resnet18"), "has boxes, but torchvision:resnet18 is not a det"),
    ],
    ids=["nin", "classes", "classes for one's own", "a classifier"],
)
def test_a_detector_and_boxes_belong_together(
    flags: tuple[str, ...], words: str, command: Callable, workplace: Path
) -> None:
    assert_refused(command("scripts.results", *flags), 2, words)
    assert not list(workplace.iterdir())


@pytest.mark.parametrize("arch", [SSDLITE, pytest.param(SSD300, marks=pytest.mark.slow)])
def test_rows_that_a_detector_refuses_are_left_out_by_name(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    """SSD300 has no batch norms, so nothing that begins with sparse training; quantizers fit both."""
    asked = options(dataset="scenes", arch=arch, image_size={SSDLITE: 64, SSD300: 300}[arch])
    every = rows.of(arch)
    names = [row.name for row in fitting.fitting(asked, every)]
    out = {row.name for row in every} - set(names)
    said = capsys.readouterr().err
    assert all(name in said for name in out)
    if arch == SSDLITE:
        assert out == {"prune50_scratch"}
    else:
        assert {"sparse", "prune50_refine", "prune50_wtab"} <= out
        assert "no batch norm of this network scales channels that can be cut" in said
        assert {"nin", "ptq_mse", "w4a4", "wbab"} <= set(names)


def test_a_step_that_prepare_refuses_takes_its_rows_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(step: object, network: object) -> None:
        if getattr(step, "module", "") == "quant.wbwtab":
            raise UserError("no codes of two values here", "take others")

    monkeypatch.setattr(fitting, "_network", lambda _: object())
    monkeypatch.setattr(fitting, "_try", refuse)
    chosen = rows.choose(["nin", "wbab", "wtab"], SSDLITE)
    left = fitting.fitting(options(dataset="scenes", arch=SSDLITE), chosen)
    assert [row.name for row in left] == ["nin"]
    assert capsys.readouterr().err == "notice: left out wbab, wtab: no codes of two values here\n"
    with pytest.raises(UserError, match="fills none of these rows: wbab, wtab: no codes of two values here"):
        fitting.fitting(options(dataset="scenes", arch=SSDLITE), chosen[1:])


@pytest.mark.parametrize("name", FOLDERS)
def test_a_ladder_of_other_boxes_is_another_ladder(name: str, tmp_path: Path) -> None:
    FOLDERS[name](tmp_path)
    asked = options(dataset=name, root=tmp_path, arch=SSDLITE, image_size=32, num_workers=0)
    assert asked.name == f"{tmp_path.name}-ssdlite320_mobilenet_v3_large"
    said = fingerprint.of(asked)
    assert said["pictures"] == "10 to train on, 4 to judge on"
    fingerprint.compare_or_write(tmp_path / "ladder.json", said, begun=False)
    fingerprint.compare_or_write(tmp_path / "ladder.json", fingerprint.of(asked), begun=True)
    if name == "yolo":
        path = tmp_path / "labels" / "train" / "1.txt"
        path.write_text("0 0.5 0.5 0.125 0.125\n")
    else:
        path = tmp_path / "train.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["bbox"][0] += 1
        path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="another ladder: boxes: "):
        fingerprint.compare_or_write(tmp_path / "ladder.json", fingerprint.of(asked), begun=True)


def done(**more: object) -> Done:
    plain = Done(
        row="nin", label="ssd", seed=1, accuracy=50.0, epochs="2", macs=10, params=5, size_bits=8, bytes_counted=1,
        pictures=9, judged_on="val", dataset="x", machine="m", cfg=[], cfg_before=None, task="detection",
        curve=[{"epoch": 1, "val_mAP": 40.0}, {"epoch": 2, "val_mAP": 50.0}],
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


def test_a_result_of_a_detector_is_stored_as_map(tmp_path: Path) -> None:
    path = tmp_path / "nin-s1.json"
    result.save(path, done())
    content = json.loads(path.read_text())
    assert (content["mAP"], content["task"], "accuracy" in content) == (50.0, "detection", False)
    assert result.load(path) == done()
    path.write_text(json.dumps({**content, "task": "poetry"}))
    with pytest.raises(UserError, match="is damaged: no task 'poetry'"):
        result.load(path)
    del content["mAP"]
    path.write_text(json.dumps({**content, "accuracy": 50.0}))
    with pytest.raises(UserError, match="lacks row, label, seed, dataset, pictures, judged_on, mAP"):
        result.load(path)


def test_axes_and_headline_say_map(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from scripts.ladder import plots

    figure = plots.curves_figure([done()])
    assert figure.axes[0].get_ylabel() == "mAP in %"
    assert figure.axes[0].lines[0].get_ydata().tolist() == [40.0, 50.0]
    drawn: list[tuple] = []
    monkeypatch.setattr("scripts.plots.size", lambda *said: drawn.append(said))
    known = table.mean([done()])
    assert known
    plots.size({"nin": known})
    assert drawn[0][2].name == "mAP"
    assert table.headline({"nin": [done()]}, rows.of(SSDLITE)).startswith("| network | epochs | mAP | loss, points |")
