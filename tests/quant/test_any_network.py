"""Networks without declarations: pruned, quantized by every command, merged, compared and evaluated with only --arch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.errors import USAGE
from tests.conftest import SMALL, assert_refused

NETS = "tests.tools.cases"
QUANTIZE = (
    ("quant.wqaq", "--Wbits", "4", "--Abits", "4"),
    ("quant.wqaq", "--Wbits", "4", "--Abits", "4", "--quantizer", "lsq"),
    ("quant.wqaq", "--q_type", "0", "--bn_fold", "1"),
    ("quant.wbwtab", "--W", "2", "--A", "2"),
    ("quant.wbwtab", "--W", "3", "--A", "2", "--order", "cbap"),
)


ONCE = (("Residual", 0), ("Residual", 2), ("Concatenation", 3), ("SqueezeExcite", 1), ("SharedConv", 4))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        *((name, (number,)) for name, number in ONCE[1:4]),
        *(pytest.param(name, (number,), marks=pytest.mark.slow) for name, number in (ONCE[0], ONCE[4])),
        pytest.param("mobilenet_v1", range(len(QUANTIZE)), marks=pytest.mark.slow),
        pytest.param("Residual", range(len(QUANTIZE)), marks=pytest.mark.slow),
    ],
)
def test_the_chain_goes_on_to_merged_files(
    name: str, numbers: Sequence[int], command: Callable[..., SimpleNamespace]
) -> None:
    own = ("--arch", f"{NETS}:{name}")
    assert command("prune.train", "-sr", "--s", "0.01", *own, *SMALL).code == 0
    pruned = command("prune.normal_regular", "--percent", "0.4", *own, "--cpu")
    assert pruned.code == 0, pruned.err
    made = [command(*words, "--refine", pruned.path, *own, *SMALL) for words in map(QUANTIZE.__getitem__, numbers)]
    made.append(command("quant.ptq", "--model", pruned.path, *own, "--bias_correction", "--cpu"))
    for quantized in made:
        assert quantized.code == 0, quantized.err
        merged = command("bn_merge.__main__", "--model", quantized.path, *own, "--json", "--cpu")
        assert merged.code == 0, merged.err
        found = json.loads(merged.out)
        assert found["agree"] == 360
        judged = command("quant.wqaq", "--evaluate", found["path"], *own, "--cpu")
        assert f"{found['accuracy']:.2f} %" in judged.out
        norms = [key for key in torch.load(found["path"], weights_only=True)["state_dict"] if "running_mean" in key]
        assert bool(norms) is (name in ("SharedConv", "Concatenation")), norms
        assert ("not directly behind one convolution" in merged.err) is bool(norms)
    compared = command(
        "bn_merge.compare", "models_save/" + Path(made[0].path).stem + "_merged.pth", *own, "--float64", "--cpu"
    )
    assert "same answer   360 of 360" in compared.out, compared.err
    report = command("scripts.report", *(quantized.path for quantized in made), *own)
    assert report.code == 0, report.err


def test_what_stays_float_is_named(command: Callable[..., SimpleNamespace]) -> None:
    transposed = command("quant.wqaq", "--Wbits", "4", "--Abits", "4", "--arch", f"{NETS}:Transposed", *SMALL)
    assert "notice: kept in float, with 32 bits a number: up (ConvTranspose2d)" in transposed.err
    computed = command("quant.wqaq", "--Wbits", "4", "--Abits", "4", "--arch", f"{NETS}:WeightsByFunction", *SMALL)
    assert "(linear)" in computed.err


def test_inputs_that_suit_their_codes_badly_are_warned_of(command: Callable[..., SimpleNamespace]) -> None:
    own = ("--arch", f"{NETS}:prelu", *SMALL)
    assert "can be negative; dorefa codes start at 0" in command("quant.wqaq", "--Abits", "4", "--Wbits", "4", *own).err
    gates = ("--arch", f"{NETS}:SqueezeExcite", *SMALL)
    assert "are never negative: binary codes lose most of their information" in command("quant.wbwtab", *gates).err


def test_a_network_of_two_layers_has_nothing_between_its_ends(
    command: Callable[..., SimpleNamespace], workplace: Path
) -> None:
    (workplace / "two.py").write_text(
        "from torch import nn\n"
        "def net(classes=10):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))\n"
    )
    refused = command("quant.wbwtab", "--W", "2", "--A", "2", "--arch", "two.py:net", *SMALL)
    assert_refused(refused, USAGE, "no layer between the first and the last one can be quantized")


def test_a_network_of_computed_weights_is_told_how_to_make_plain_ones(
    command: Callable[..., SimpleNamespace], workplace: Path
) -> None:
    (workplace / "normed.py").write_text(
        "from torch import nn\n"
        "from torch.nn.utils.parametrizations import weight_norm as w\n"
        "def net(classes=10):\n"
        "    return nn.Sequential(w(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), w(nn.Linear(4, classes)))\n"
    )
    refused = command("quant.wbwtab", "--W", "2", "--A", "2", "--arch", "normed.py:net", *SMALL)
    assert_refused(refused, USAGE, "no layer between the first and the last one can be quantized")
    assert "remove_parametrizations" in refused.err
