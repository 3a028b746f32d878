"""Exporting and racing from end to end: files, output, and missing packages."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import packed
from deploy.racing import clock
from deploy.racing.clock import Timed
from deploy.reference.run import run
from engine.errors import BAD_CHECKPOINT, CANNOT_WRITE, USAGE
from tests.conftest import assert_refused
from tests.tools.contents import raw

Command = Callable[..., SimpleNamespace]
PACK, ONNX, BENCH = "deploy.pack", "deploy.onnx", "deploy.bench"
W4A4, PACKED, MODEL = (f"models_save/nin_w4a4.{kind}" for kind in ("pth", "safetensors", "onnx"))
QUICK = (
    "--model",
    W4A4,
    "--seconds",
    "0.05",
    "--batches",
    "1",
    "--without",
    "torch.compile*",
    "ONNX*",
    "OpenVINO*",
    "MNN*",
    "native*",
)
TAKING_PART = ["PyTorch eager, fp32", "PyTorch, folded, channels last", "torch executor", "reference executor"]


def hide(monkeypatch: pytest.MonkeyPatch, package: str, *ours: str) -> None:
    """Hide a package as if it were not installed; modules in `ours` import it when they are loaded."""
    for name in [*sys.modules]:
        if name == package or name.startswith((f"{package}.", *ours)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_model_is_written_and_says_what_it_needs(stocked: Command) -> None:
    onnx = pytest.importorskip("onnx")
    import torch

    from deploy.exporting.biases import rounded
    from tests.deploy.exporting.sessions import session

    result = stocked(ONNX, "--model", W4A4)
    assert (result.code, result.path) == (0, MODEL)
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["notice"] * 2
    assert "trained with float numbers: block1.conv, block9.conv" in result.err
    assert "rounded the biases of 7 layers to whole steps of the sums" in result.err  # the last two give fp32
    model, known = onnx.load(MODEL), raw(W4A4)
    kinds = [node.op_type for node in model.graph.node]
    assert result.out.splitlines()[0] == (
        f"{MODEL}: {Path(MODEL).stat().st_size:,} bytes, {len(kinds)} nodes, {kinds.count('Conv')} convolutions"
    )
    assert kinds.count("Conv") == 9
    told = {each.key: each.value for each in model.metadata_props}
    assert (told["arch"], told["data"], told["made_from"]) == ("nin", "digits", W4A4)
    for name in ("mean", "std"):
        assert [float(number) for number in told[name].split()] == list(known["dataset"][name])
    program = rounded(packed.open(Path(stocked(PACK, "--model", W4A4).path)).program).program
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = torch.from_numpy(session(model).run(None, {"picture": x.numpy()})[0])
    torch.testing.assert_close(found, run(program, x), rtol=1e-4, atol=1e-5)


def test_exact_biases_give_the_answers_of_the_packed_file(stocked: Command) -> None:
    onnx = pytest.importorskip("onnx")
    import torch

    from tests.deploy.exporting.sessions import session

    program = packed.open(Path(stocked(PACK, "--model", W4A4).path)).program
    result = stocked(ONNX, "--model", PACKED, "--biases", "exact")
    assert (result.code, result.err) == (0, "")
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = torch.from_numpy(session(onnx.load(MODEL)).run(None, {"picture": x.numpy()})[0])
    torch.testing.assert_close(found, run(program, x), rtol=1e-4, atol=1e-5)


def test_a_packed_file_gives_the_same_model_as_its_checkpoint(stocked: Command) -> None:
    pytest.importorskip("onnx")
    assert stocked(PACK, "--model", W4A4).code == 0
    first = stocked(ONNX, "--model", PACKED)
    assert (first.code, first.path) == (0, MODEL)
    again = stocked(ONNX, "--model", W4A4)
    assert (again.code, again.err.splitlines()[-1]) == (0, f"replaced {MODEL}")
    other = stocked(ONNX, "--model", PACKED, "--save", "there/other.onnx", "--json")
    assert Path(MODEL).read_bytes() == Path("there/other.onnx").read_bytes()
    told = json.loads(other.out)
    assert (told["path"], told["bytes"]) == ("there/other.onnx", Path(MODEL).stat().st_size)
    assert_refused(stocked(ONNX, "--model", W4A4, "--save", W4A4), USAGE, f"{W4A4} is both input and output")
    assert_refused(stocked(ONNX, "--model", "gone.pth"), BAD_CHECKPOINT, "gone.pth: no such file")


def test_without_onnx_the_hint_says_how_to_get_it(stocked: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "onnx", "deploy.exporting")
    missing = stocked(ONNX, "--model", W4A4)
    assert_refused(missing, USAGE, "onnx is not installed")
    assert missing.err.endswith("hint: pip install onnx onnxruntime\n")
    assert not Path(MODEL).exists()


def test_a_race_is_shown_and_drawn(stocked: Command) -> None:
    pytest.importorskip("matplotlib")
    result = stocked(BENCH, *QUICK)
    assert (result.code, result.path) == (0, "models_save/nin_w4a4_bench.png")
    assert Path(result.path).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    lines = result.out.splitlines()
    assert re.fullmatch(r"network +batch 1, ms +times as fast +same answers +model, bytes +runs by", lines[0].strip())
    for name, line in zip(TAKING_PART, lines[1:5], strict=True):
        kind = "compressed" if "executor" in name else "float"
        assert re.match(rf"{name} +{kind} +\d+\.\d\d +\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", line), line
    assert re.search(r" 1\.00 \(1\.00 to 1\.00\)", lines[1])
    assert " ".join(lines[4].split("100.0 %")[1].split()) == "integers in 8 of 9 layers, the definition"
    assert re.match(rf"{W4A4}: {Path(W4A4).stat().st_size:,} bytes, packed \d,\d{{3}}$", lines[-3])
    assert "PyTorch" in lines[-2]
    assert "same answers: share of 1 random picture with the reference executor's answer; " in lines[-2]
    assert "measuring batches of 1\n" in result.err


NATIVE = [each for each in QUICK if each != "native*"]


def test_where_the_time_goes(stocked: Command, engine: None) -> None:
    """Each layer is named with its kernel, its multiply-accumulates and its time."""
    found = json.loads(stocked(BENCH, *NATIVE, "torch ex*", "--profile", "--json").out)
    layers = [row for row in found["profile"] if row["kind"] == "Convolution"]
    weights = [each for name, each in raw(W4A4)["state_dict"].items() if name.endswith("weight") and each.ndim == 4]
    assert len(layers) == len(weights)
    assert all(row["seconds"] > 0 and row["kernel"] in ("bytes", "shorts", "fp64") for row in layers)
    assert all(row["macs"] > 0 == row["macs"] % weight.numel() for row, weight in zip(layers, weights, strict=True))


def test_the_time_in_a_table(stocked: Command, engine: None) -> None:
    lines = stocked(BENCH, *NATIVE, "torch ex*", "--profile").out.splitlines()
    assert any(re.match(r"one core, measured: \d+ GMAC/s of bytes, \d+ GMAC/s of signs, by ", line) for line in lines)
    head = next(
        n
        for n, line in enumerate(lines)
        if re.match(r"layer +operation +kernel +us a picture +share +MMAC +GMAC/s", line)
    )
    shares = [float(found[1]) for line in lines[head + 1 :] if (found := re.search(r" (\d+\.\d) %( |$)", line))]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))


def test_without_the_native_executor_no_profile_is_given(stocked: Command) -> None:
    assert json.loads(stocked(BENCH, *QUICK, "--profile", "--json").out)["profile"] == []
    assert "--profile: the native executor was not measured" in stocked(BENCH, *QUICK, "--profile").out


def test_a_race_in_numbers(stocked: Command) -> None:
    found = json.loads(stocked(BENCH, *QUICK, "--threads", "1", "--picture", "race.png", "--json").out)
    assert [*found["milliseconds"]] == ["1"]
    timed = found["milliseconds"]["1"]
    assert [*timed] == TAKING_PART
    assert all(each["milliseconds"] > 0 and each["rounds"] >= 5 for each in timed.values())
    assert timed[TAKING_PART[0]]["faster"] == 1.0
    assert found["same_answers"] == {"torch executor": 1.0, "reference executor": 1.0}
    size = len(Path(stocked(PACK, "--model", W4A4).path).read_bytes())
    assert found["bytes"]["checkpoint"] == Path(W4A4).stat().st_size
    assert found["bytes"]["packed"] == pytest.approx(size, abs=200)  # its provenance names another command
    assert (found["threads"], found["path"]) == (1, "race.png")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return fake milliseconds of each contender; the default is 2."""
    told: dict[str, float] = {}

    def race(runs: Mapping[str, Any], seconds: float) -> dict[str, Timed]:
        assert seconds == 0.05
        first = told.get(next(iter(runs)), 2.0)
        return {name: Timed(t := told.get(name, 2.0), first / t, first / t / 2, first / t * 2, 5) for name in runs}

    monkeypatch.setattr(clock, "race", race)
    return told


@pytest.mark.parametrize("name", ["there/race.png", "race.pdf", "race"])
def test_the_picture_is_where_it_is_said_to_be(name: str, stocked: Command, timed: dict[str, float]) -> None:
    pytest.importorskip("matplotlib")
    result = stocked(BENCH, *QUICK, "--picture", name)
    assert result.code == 0, result.err
    assert Path(result.path).is_file()


@pytest.mark.parametrize(("name", "code"), [("models_save", CANNOT_WRITE), ("race.xyz", USAGE)])
def test_a_picture_that_cannot_be_written_is_refused_before_the_race(
    name: str, code: int, stocked: Command, timed: dict[str, float]
) -> None:
    pytest.importorskip("matplotlib")
    refused = stocked(BENCH, *QUICK, "--picture", name)
    assert_refused(refused, code, name)


def test_where_nothing_is_faster_it_is_said(stocked: Command, timed: dict[str, float]) -> None:
    timed.update({"PyTorch, folded, channels last": 1.5, "torch executor": 1.75, "reference executor": 9.0})
    lines = stocked(BENCH, *QUICK, "--batches", "1", "3").out.splitlines()
    words = "compression made nothing faster here: torch executor takes 1.75 ms, the float network in {} 1.50 ms"
    assert [line for line in lines if line.startswith("batch ")] == [
        f"batch {batch}: {words.format('PyTorch, folded, channels last')}" for batch in (1, 3)
    ]
    assert re.split("  +", lines[3])[:6] == [
        "torch executor", "compressed", "1.75", "1.14 (0.57 to 2.29)", "1.75", "1.14 (0.57 to 2.29)",
    ]  # fmt: skip
    timed["torch executor"] = 1.49
    assert "made nothing faster" not in stocked(BENCH, *QUICK).out


def test_a_runtime_that_is_slower_on_whole_numbers_is_named(
    stocked: Command, timed: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy.racing import contenders

    kept = contenders.entries

    def entries(*given: Any) -> Any:
        first, *others = kept(*given)
        yield first
        yield from (replace(first, name=f"{name}, fp32") for name in ("ONNX Runtime", "OpenVINO"))
        yield from (replace(first, name=f"{name}, int8", compressed=True) for name in ("ONNX Runtime", "OpenVINO"))
        yield from others

    monkeypatch.setattr(contenders, "entries", entries)
    timed.update({"ONNX Runtime, fp32": 0.41, "ONNX Runtime, int8": 1.44, "OpenVINO, fp32": 3.0})
    lines = stocked(BENCH, *QUICK, "--batches", "1", "3").out.splitlines()
    assert [line for line in lines if line.startswith(("ONNX Runtime: ", "OpenVINO: "))] == [
        f"ONNX Runtime: int8 takes 1.44 ms, fp32 0.41 ms at batch {batch}" for batch in (1, 3)
    ]
    assert json.loads(stocked(BENCH, *QUICK, "--json").out)["slower"] == [
        {"runtime": "ONNX Runtime", "kind": "int8", "batch": 1, "milliseconds": 1.44, "fp32": 0.41}
    ]


def test_a_batch_size_is_given_once(stocked: Command) -> None:
    assert_refused(
        stocked(BENCH, "--model", W4A4, "--batches", "1", "3", "1"), USAGE, "--batches 1 3 1: a size appears twice"
    )


def test_a_race_of_float_networks_alone(stocked: Command, timed: dict[str, float]) -> None:
    result = stocked(BENCH, *QUICK[:-6], "--without", "*")
    assert result.code == 0
    assert result.out.splitlines()[1].split()[:4] == ["PyTorch", "eager,", "fp32", "float"]
    assert "same answers" not in result.out


def test_who_is_absent_is_named(stocked: Command, timed: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "openvino", "MNN", "_tools", "matplotlib"):
        hide(monkeypatch, package)
    result = stocked(BENCH, *QUICK[:-5], "torch.compile*", "native*")
    assert result.code == 0
    for runtime, package in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        for kind in ("fp32", "int8"):
            assert f"{runtime}, {kind}: left out, {package} is not installed: pip install {package}\n" in result.out
    assert "MNN, fp32: left out, MNN is not installed: pip install MNN\n" in result.out
    assert "notice: no picture: matplotlib is not installed (pip install matplotlib bokeh)\n" in result.err
    assert not list(Path("models_save").glob("*.png"))


def test_a_packed_file_is_no_contender(stocked: Command) -> None:
    assert stocked(PACK, "--model", W4A4).code == 0
    refused = stocked(BENCH, "--model", PACKED)
    assert_refused(refused, USAGE, f"{PACKED} is packed")
    assert refused.err.endswith(f"hint: name the checkpoint: --model {W4A4}\n")
