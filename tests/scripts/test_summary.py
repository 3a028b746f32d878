"""The summary by layer: totals are sums, the article's network has the article's numbers, and sensitivities are measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models
from engine.data import catalogue, download
from engine.errors import BAD_DATA, USAGE, UserError
from engine.tasks.classification import CLASSIFICATION
from models.cost import LayerCost
from scripts import sensitivity
from scripts.summary import _by_layer
from scripts.table import short
from tests.conftest import SMALL, assert_refused
from tests.tools.contents import raw, typed

# "Network Slimming" article, HySmiley: its two torchsummary listings for pictures 3x20x20 and 2 classes. Their row for the
# global mean, 0 parameters, has no row here, because it is a call, not a module. Its 256 numbers, forward and backward,
# are the difference between 0.164 MB here and the article's 0.166.
ARTICLE = {
    "": ("9,408 128 0 73,728 256 0 294,912 512 0 514", 379_458, "0.16", "1.45", "1.62"),
    "[29, 56, 75, 'A']": ("4,263 58 0 14,616 112 0 37,800 150 0 152", 57_151, "0.07", "0.22", "0.29"),
}
SHAPES = {
    "": "64x8x8 64x8x8 64x8x8 128x4x4 128x4x4 128x4x4 256x2x2 256x2x2 256x2x2 2",
    "[29, 56, 75, 'A']": "29x8x8 29x8x8 29x8x8 56x4x4 56x4x4 56x4x4 75x2x2 75x2x2 75x2x2 2",
}

Command = Callable[..., SimpleNamespace]


@pytest.mark.parametrize("cfg", ARTICLE)
def test_the_numbers_of_the_slimming_article(cfg: str, workplace: Path, command: Command) -> None:
    line = ["--arch", "slimming", "--classes", 2, "--image_size", 20, *(("--cfg", cfg) if cfg else ())]
    done = command("scripts.summary", *line)
    layers, params, forward_backward, parameters, total = ARTICLE[cfg]
    rows = [text.split() for text in done.out.splitlines()[1:11]]
    assert " ".join(row[3] for row in rows) == layers
    assert " ".join(row[2] for row in rows) == SHAPES[cfg]
    assert f"parameters  {params:,} " in done.out
    assert f"forward/backward {forward_backward}, parameters {parameters}, total {total}\n" in done.out
    assert not list(workplace.iterdir())


@pytest.mark.parametrize("arch", models.names())
def test_totals_are_the_sums_of_the_rows(arch: str, workplace: Path, command: Command) -> None:
    done = command("scripts.summary", "--arch", arch)
    found = json.loads(command("scripts.summary", "--arch", arch, "--json").out)
    rows = [line.split() for line in done.out.splitlines()[1 : 1 + len(found["layers"])]]
    counts = {"params": [], "macs": [], "bits": []}
    for row, layer in zip(rows, found["layers"], strict=True):
        assert row[0] == layer["name"]
        for place, what in ((3, "params"), (4, "macs"), (-1, "bits")):
            counts[what].append(int(row[place].replace(",", "")))
            assert counts[what][-1] == layer[what]
    network = models.build(arch)
    learnt = sum(p.numel() for p in network.parameters())
    statistics = sum(b.numel() for name, b in network.named_buffers() if name.endswith(("mean", "var")))
    assert sum(counts["params"]) == found["params"] == learnt
    assert sum(counts["bits"]) == found["bits"] == 32 * (learnt + statistics)
    assert sum(counts["macs"]) == found["macs"]
    assert f"MACs        {found['macs']:,} ({short(found['macs'] / 2**30)} x 2^30" in done.out
    assert f"stored      {found['bits']:,} bits = {found['bits'] / 8e6:.4f} MB" in done.out
    forward = 4 * sum(prod(layer["shape"]) for layer in found["layers"])
    memory = {"input": 12_288, "forward": forward, "forward_backward": 2 * forward, "parameters": 4 * learnt}
    assert found["memory_bytes"] == memory


@pytest.fixture
def trained(workplace: Path, command: Command) -> Path:
    """Train a small slimming network with different scales; the second epoch gives it accuracy to lose."""
    done = command("prune.train", *SMALL, "--arch", "slimming", "--cfg", "8,12,16", "--epochs", 2, "-sr")
    assert done.code == 0, done.err
    return Path(done.path)


def test_a_file_knows_its_classes_and_pictures(trained: Path, command: Command) -> None:
    found = json.loads(command("scripts.summary", trained, "--json").out)
    assert found["layers"][0]["shape"] == [8, 2, 2]  # 8x8 pictures, stride 2, 7x7 with a margin of 1
    assert found["layers"][-1]["shape"] == [10]
    quantized = command("quant.wqaq", *SMALL, "--Wbits", "t", "--Abits", 4, "--refine", trained)
    rows = {row["name"]: row for row in json.loads(command("scripts.summary", quantized.path, "--json").out)["layers"]}
    assert rows["block2.conv"]["bits"] == 2 * 8 * 12 * 9 + 32 * 12  # ternary codes and a scale for each filter; no bias
    assert rows["block1.conv"]["bits"] == 32 * 3 * 8 * 49  # an end: float
    for flag, value in (("--cfg", "8,8,8"), ("--classes", 3)):
        assert command("scripts.summary", trained, flag, value).code == 2


def test_sensitivity(trained: Path, command: Command) -> None:
    content = raw(trained)
    before = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}
    done = command("scripts.summary", "--sensitivity", trained, "--cpu")
    assert done.code == 0, done.err
    head, *lines = done.out.splitlines()
    assert head == f"test accuracy in % on 360 pictures of digits; whole network {content['best_acc']:.2f}"
    convs = [f"block{n}.conv" for n in (1, 2, 3)]
    assert [line.split()[0] for line in lines] == ["layer", *convs, "linear", "layer", *convs]
    assert re.split(r"\s{2,}", lines[0]) == ["layer", "8 bit", "4 bit", "2 bit"]
    assert re.split(r"\s{2,}", lines[5]) == ["layer", "-25 %", "-50 %", "-75 %"]
    bits, cut = (
        {line.split()[0]: [float(v) for v in line.split()[1:]] for line in part} for part in (lines[1:5], lines[6:])
    )
    assert all(abs(values[0] - content["best_acc"]) < 3 for values in bits.values())  # 8 bit

    data = catalogue.load("digits", image_size=8)
    for layer, values in cut.items():
        for share, shown in zip((0.25, 0.5, 0.75), values, strict=True):
            network = models.restore(typed(content))  # by hand: set the channels with the smallest scales to 0
            bn = network.get_submodule(layer.replace("conv", "bn"))
            dropped = bn.weight.abs().argsort(stable=True)[: round(share * len(bn.weight))]
            bn.weight.data[dropped] = bn.bias.data[dropped] = 0
            assert shown == round(CLASSIFICATION.evaluate(network, data.test).score, 2), (layer, share)
    assert {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()} == before

    same = json.loads(command("scripts.summary", "--sensitivity", trained, "--cpu", "--json").out)
    assert same["accuracy"] == content["best_acc"]
    told = {name: [round(v, 2) for v in row.values()] for name, row in same["sensitivity"].items()}
    assert told == {name: [*values, *cut.get(name, [])] for name, values in bits.items()}


def test_sensitivity_is_listed_in_the_order_of_the_layers(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "BITS", (8,))
    monkeypatch.setattr(sensitivity, "SHARES", (0.5,))
    monkeypatch.setattr(sensitivity, "CALIBRATION_PICTURES", 8)
    torch.save(models.build("separable", [8] * 8).state_dict(), "pairs.pth")
    line = ("--arch", "separable", "--dataset", "digits", "--image_size", 8, "--cpu", "--json")
    found = json.loads(command("scripts.summary", "--sensitivity", "pairs.pth", *line).out)["sensitivity"]
    pairs = [f"block{n}.{conv}" for n in range(2, 9) for conv in ("conv1", "conv")]  # a pair's `conv` reads its `conv1`
    assert [name for name in found if "8 bit" in found[name]] == ["block1.conv", *pairs, "block9.conv"]


def test_sensitivity_of_what_has_none(trained: Path, command: Command) -> None:
    quantized = command("quant.wqaq", *SMALL, "--refine", trained)
    for argv, code in (((), 2), ((quantized.path,), 3), (("gone.pth",), 3)):
        done = command("scripts.summary", "--sensitivity", *argv)
        assert done.code == code
        assert [line.split(" ")[0] for line in done.err.splitlines()] == ["error:", "hint:"]


def test_sensitivity_of_a_file_of_the_original(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> None:
        raise UserError("no network here", "none", BAD_DATA)

    monkeypatch.setattr(download, "_download", offline)
    torch.save(models.build("slimming", [8, 8, 8]).state_dict(), "old.pth")
    line = ("scripts.summary", "--sensitivity", "old.pth", "--image_size", 8, "--cpu")
    assert command(*line, "--dataset", "digits").code == 0
    assert command(*line).code in (0, 2)


@pytest.mark.parametrize("line", ["scripts.summary --sensitivity", "prune.train --evaluate"])
def test_pictures_of_more_classes_than_the_network_has(line: str, workplace: Path, command: Command) -> None:
    torch.save(models.build("slimming", [8, 8, 8], classes=2).state_dict(), "two.pth")
    assert command(*line.split(), "two.pth", "--dataset", "digits", "--image_size", 8, "--cpu").code in (2, 3, 4)


NETS = "tests.tools.cases"


def test_a_captured_network_has_rows_for_its_calls(command: Command) -> None:
    done = command("scripts.summary", "--arch", "tests.tools.odd_networks:small_attention", "--image_size", 8)
    assert done.code == 0, done.err
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()[1:6]}
    assert list(rows) == ["stem", "mix.linear", "mix.scaled_dot_product_attention", "mix.out_proj", "head"]
    assert rows["mix.scaled_dot_product_attention"] == ["ATen", "2x64x3", "0", f"{2 * 64 * 64 * 6:,}", "0"]
    found = json.loads(
        command(
            "scripts.summary", "--arch", "tests.tools.odd_networks:small_attention", "--image_size", 8, "--json"
        ).out
    )
    assert found["macs"] == 64 * 162 + 64 * 108 + 2 * 64 * 64 * 6 + 64 * 36 + 60
    assert found["params"] == 168 + 126 + 42 + 70
    assert found["bits"] == 32 * found["params"]


def test_a_captured_file_is_shown_pictures_of_the_size_that_is_asked_for(command: Command) -> None:
    path = command("prune.train", "--arch", f"{NETS}:prelu", *SMALL).path
    own = ("--arch", f"{NETS}:prelu", "--json")
    shapes = [
        json.loads(command("scripts.summary", path, *own, *asked).out)["layers"][0]["shape"]
        for asked in ((), ("--image_size", 16))
    ]
    assert shapes == [[16, 8, 8], [16, 16, 16]]
    judged = command("prune.train", "--evaluate", path, *own[:2], "--image_size", 16, "--cpu")
    assert judged.code == 0, judged.err
    assert "the pictures are 16x16, but the file is for 8x8" in judged.err
    assert command("scripts.summary", "--sensitivity", path, *own[:2], "--cpu").code == 0


def test_a_network_of_another_size_is_refused_in_two_lines(command: Command) -> None:
    found = command("scripts.summary", "--arch", "torchvision:vit_b_16")
    assert_refused(found, USAGE, "Expected 224 but got 32")
    assert "pictures of 3x32x32" in found.err


def test_long_names_lose_their_beginning_on_a_narrow_terminal() -> None:
    rows = [
        LayerCost(name, "Linear", (4,), 1, 1, 32, 32)
        for name in ("encoder.layers.encoder_layer_0.self_attention.out_proj", "head")
    ]
    whole = _by_layer(rows, None)
    assert _by_layer(rows, len(whole[0])) == whole
    narrow = _by_layer(rows, len(whole[0]) - 10)
    assert {len(line) for line in narrow} == {len(whole[0]) - 10}
    assert narrow[1].split()[0] == "..rs.encoder_layer_0.self_attention.out_proj"
    assert _by_layer(rows, 10)[1].split()[0] == "..elf_attention.out_proj"


def test_the_report_says_no_widths_where_there_are_none(command: Command) -> None:
    own = ("--arch", f"{NETS}:prelu")
    command("prune.train", "-sr", *own, *SMALL)
    path = command("prune.normal_regular", "--percent", "0.5", *own, "--cpu").path
    rows = json.loads(Path(command("scripts.report", path, *own).path).with_suffix(".json").read_text())
    assert rows[0]["remarks"] == "full precision"
    assert "cfg" not in command("engine.checkpoint.__main__", "inspect", path).out.split("network")[1].splitlines()[0]
