"""--keep_float: layers stay float by name or by pattern, in every quantizing command, and the file records them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.errors import UserError
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers import kinds
from quant.placement import meet
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.restore import open as opened, spec_of
from quant.spec import QuantSpec, affine_spec, uniform
from tests.conftest import JUDGING, NARROW, SMALL, assert_refused
from tests.tools.networks import form

ENDS = ["block1.conv", "block9.conv"]
COMMANDS = {
    "quant.wqaq": ("--cfg", NARROW, *SMALL),
    "quant.wbwtab": ("--W", 3, "--cfg", NARROW, *SMALL),
    "quant.ptq": ("--cpu", "--quiet"),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return form("nin", [8] * 8)


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ((), []),
        (("block3.conv",), ["block3.conv"]),
        (("block[34].*", "block3.conv"), ["block3.conv", "block4.conv"]),
        (("block2.conv", "*1.conv"), ["block2.conv"]),  # an end is there once
    ],
)
def test_patterns_become_names(patterns: tuple[str, ...], kept: list[str]) -> None:
    model = network()
    spec = meet(QuantSpec(quantizer(4), quantizer(4)), model, patterns)
    assert list(spec.exceptions) == ENDS + kept
    assert QuantSpec.from_dict(spec.to_dict()) == spec
    float_layers = [n for n, m in prepare(model, spec).named_modules() if type(m) is nn.Conv2d]
    assert float_layers == sorted(ENDS + kept)


OFFERED = [
    uniform(traits.name, traits.bits[-1], traits.bits[-1])
    for traits in kinds.all_traits().values()
    if len(traits.bits) > 1
]


@pytest.mark.parametrize(
    "spec",
    [*OFFERED, affine_spec(8, 8, 1, True), QuantSpec(quantizer("b"), quantizer("b"), order="bacp")],
    ids=lambda spec: spec.name,
)
def test_every_quantizer_spares_them(spec: QuantSpec) -> None:
    model = network()
    plain, kept = (prepare(model, meet(spec, model, names)) for names in ((), ("block4.conv", "block1.conv")))
    assert type(kept.block4.conv) is type(kept.block1.conv) is nn.Conv2d
    for number in (2, 3, 5, 6, 7, 8):
        assert type(kept.get_submodule(f"block{number}.conv")) is type(plain.get_submodule(f"block{number}.conv"))
        assert isinstance(kept.get_submodule(f"block{number}.conv"), QuantConv2d)
    assert type(kept.block3.act) is nn.ReLU  # read by a float layer
    kept(torch.randn(2, 3, 8, 8)).sum().backward()


@pytest.mark.parametrize(
    ("pattern", "words", "hint"),
    [
        ("block4.con", "--keep_float 'block4.con' matches no convolution", "did you mean block4.conv?"),
        ("block4.bn", "'block4.bn' matches no convolution", "block4.conv"),
        ("zzz*", "'zzz*' matches no convolution", "the layers are block1.conv, "),
        ("*", "leaves no layer to quantize", "fewer"),
    ],
)
def test_a_pattern_that_keeps_nothing_or_everything_is_refused(pattern: str, words: str, hint: str) -> None:
    with pytest.raises(UserError) as fault:
        meet(affine_spec(8, 8, 1, False), network(), (pattern,))
    assert fault.value.code == 2
    assert words in str(fault.value)
    assert hint in fault.value.hint


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_has_it_and_its_file_says_so(refined, module: str) -> None:
    done = refined(module, *COMMANDS[module], "--keep_float", "block3.*", "--keep_float", "block5.conv")
    assert done.code == 0, done.err
    file = opened(Path(done.path))
    model, spec = file.network, spec_of(file.checkpoint)
    assert spec is not None
    assert spec.kept - {*ENDS} == {"block3.conv", "block5.conv"}
    assert not hasattr(model.block3.conv, "weight_quantizer")
    assert hasattr(model.block4.conv, "weight_quantizer")
    words = "the picture not; 2 kept float" if module == "quant.ptq" else "layer float; 2 more kept float"
    assert words in refined("scripts.report", done.path).out
    assert_refused(refined(module, *COMMANDS[module], "--keep_float", "blok3.conv"), 2, "matches no convolution")


def test_evaluation_refuses_what_contradicts_the_file(refined) -> None:
    line = ("quant.wqaq", *COMMANDS["quant.wqaq"])
    path = refined(*line, "--keep_float", "block3.conv").path
    judged = ("quant.wqaq", *JUDGING, "--evaluate", path)
    assert refined(*judged).code == 0
    assert refined(*judged, "--keep_float", "*3.conv").code == 0
    assert_refused(refined(*judged, "--keep_float", "block4.conv"), 2, "which contradicts --keep_float")
    assert_refused(refined(*judged, "--keep_float", "bloc3.conv"), 2, "matches no convolution")
