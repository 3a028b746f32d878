"""Networks trained with --ends int8: the program computes what the checkpoint does, because nothing is left to round."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from deploy.lowering.walk import lower
from deploy.operations.base import Codes
from deploy.operations.layers import Convolution, Linear
from deploy.program import Program
from deploy.reference.run import run
from engine.data.augment import normalise
from engine.data.info import DataInfo
from engine.errors import UserError
from models.graph.capture.form import capture
from models.graph.flow import first_layers, last_layers
from models.graph.normal import NormalForm
from models.layers.quantizers.pixels import PixelCodes
from quant.placement import meet
from quant.prepare import prepare
from tests.deploy.quantized import ENDS, SIDE, captured, trained, until
from tests.tools.cases import Head, conv_bn

MEAN, STD = (0.4914, 0.4, 0.3), (0.2023, 0.1994, 0.25)
SIGNS = ["wbab ends", "wtab cbap ends", "wtat ends"]


def pictures(count: int = 32) -> Tensor:
    """Return normalised pictures, (N, 3, SIDE, SIDE)."""
    bytes_ = torch.randint(0, 256, (count, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0)).byte()
    return normalise(bytes_, DataInfo.unknown(10, SIDE).normalised(MEAN, STD))


class Stem(nn.Module):
    """A first convolution with settings of its own, and a layer that reads its signs."""

    def __init__(self, groups: int = 1, mode: str = "zeros", bias: bool = True) -> None:
        super().__init__()
        first = nn.Conv2d(3, 12, (3, 2), (2, 1), (1, 1), groups=groups, padding_mode=mode, bias=bias)
        self.stem, self.one, self.head = nn.Sequential(first, nn.BatchNorm2d(12)), conv_bn(12, 8), Head(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.one(torch.relu(self.stem(x)))))


def stem(*settings: object) -> NormalForm:
    torch.manual_seed(0)
    return capture(Stem(*settings).eval(), (3, SIDE, SIDE), "a test", check=False)  # type: ignore[arg-type]


@cache
def both(name: str, kind: str) -> tuple[NormalForm, Program]:
    """Return a network in evaluation, and its program."""
    return made(captured(name), kind)


def made(form: NormalForm, kind: str) -> tuple[NormalForm, Program]:
    network = trained(form, ENDS[kind], MEAN, STD)
    spec = meet(ENDS[kind], form, (), MEAN, STD)
    return network, lower(merge(network), MEAN, STD, as_trained=spec.coded_ends)


@torch.no_grad()
def farthest(network: NormalForm, program: Program) -> float:
    """Return the largest difference of an answer, as a share of the largest answer."""
    x = pictures()
    answers = network(x)
    assert answers.std(0).max() > 1e-3  # pictures differ
    return ((run(program, x) - answers).abs().max() / answers.abs().max()).item()


@pytest.mark.parametrize("kind", SIGNS)
@pytest.mark.parametrize("name", ["Residual", "ShuffleUnits", "mobilenet_v1", "Concatenation", "SharedConv"])
def test_a_program_answers_as_the_network_in_training_did(name: str, kind: str) -> None:
    """One sign that differs would change answers by far more than this."""
    assert farthest(*both(name, kind)) < 2e-6


@pytest.mark.parametrize("settings", [(3,), (1, "reflect"), (1, "circular"), (1, "zeros", False)], ids=str)
@pytest.mark.parametrize("kind", SIGNS)
def test_any_first_convolution_reads_bytes(kind: str, settings: tuple) -> None:
    assert farthest(*made(stem(*settings), kind)) < 2e-6


@torch.no_grad()
@pytest.mark.parametrize("kind", ENDS)
def test_the_first_layer_loses_nothing(kind: str) -> None:
    """It reads bytes, and its biases keep fp32 precision."""
    network, program = both("Residual", kind)
    merged = merge(network)
    found = {op.name: number for number, op in enumerate(program.operations, 1)}
    x = pictures()
    expected = merged.get_submodule("stem.0")(x)
    assert expected.std() > 0.1
    assert (run(until(program, found["stem.0"]), x) - expected).abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize("kind", ENDS)
def test_both_ends_have_codes_of_8_bits(kind: str) -> None:
    network, program = both("Residual", kind)
    (first,), (last,) = first_layers(network), last_layers(network)
    found = {op.name: op for op in program.operations if isinstance(op, (Convolution, Linear))}
    for name in (first, last):
        codes = network.get_submodule(name).weight_codes()[0]  # type: ignore[operator]
        assert isinstance(found[name].matrix.weight, Codes)
        finer = np.abs(found[name].matrix.weight.values).max() // int(codes.abs().max())  # so that biases lose less
        assert np.array_equal(found[name].matrix.weight.values, finer * codes.detach().numpy())
        assert codes.abs().max() > 16 or kind.startswith("int4")
    assert program.values[found[first].sources[0]].grid is not None
    assert (program.values[found[last].sources[0]].grid is None) == (not kind.startswith("int"))


def test_a_layer_that_is_kept_in_float_has_no_codes() -> None:
    form = captured("Residual")
    spec = meet(ENDS["wbab ends"], form, ["stem.0"], MEAN, STD)
    assert (spec.exceptions, spec.coded_ends) == (("stem.0",), ("head.fc",))
    assert type(prepare(form, spec).get_submodule("stem.0")) is nn.Conv2d


class Changed(Stem):
    """A stem that reads the picture after a function."""

    def __init__(self, function: Callable[[Tensor], Tensor] | None, channels: int = 3) -> None:
        super().__init__()
        self.function, self.drop = function, nn.Dropout(0.1)
        if channels != 3:
            self.stem[0] = nn.Conv2d(channels, 12, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.drop(x) if self.function is None else self.function(x))


def changed(function: Callable[[Tensor], Tensor] | None, channels: int = 3) -> tuple[NormalForm, Program]:
    torch.manual_seed(0)
    form = capture(Changed(function, channels).eval(), (3, SIDE, SIDE), "a test", check=False)
    return made(form, "wbab ends")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.clone(), lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: F.pad(x, (1, 0, 2, 1)),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect").clone(),
    ],
    ids=["clone", "contiguous", "pad", "pad and clone"],
)  # fmt: skip
def test_copies_and_pads_of_the_picture_have_its_bytes(function: Callable[[Tensor], Tensor]) -> None:
    network, program = changed(function)
    assert isinstance(network.get_submodule("stem.0").input_quantizer, PixelCodes)
    assert farthest(network, program) < 2e-6


@pytest.mark.parametrize(
    ("function", "channels"),
    [
        (lambda x: 2 * x - 1, 3), (None, 3), (lambda x: F.pad(x, (0, 0, 0, 0, 0, 1)), 4),
        (lambda x: x.reshape(-1, 3, SIDE, SIDE), 3), (lambda x: F.interpolate(x, scale_factor=0.5), 3),
    ],
    ids=["arithmetic", "dropout", "channels", "reshape", "resize"],
)  # fmt: skip
def test_a_first_layer_that_reads_something_else_reads_numbers(
    function: Callable[[Tensor], Tensor], channels: int
) -> None:
    """Packing does not round them either: the layer was trained on numbers."""
    network, program = changed(function, channels)
    first = network.get_submodule("stem.0")
    assert not isinstance(first.input_quantizer, PixelCodes)
    assert first.weight_bits == 8
    assert farthest(network, program) < 2e-6


def test_a_layer_that_reads_the_picture_and_something_else_reads_numbers() -> None:
    class Twice(Stem):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.one(torch.relu(self.stem(x) + self.stem(0.5 * x)))))

    torch.manual_seed(0)
    network, program = made(capture(Twice().eval(), (3, SIDE, SIDE), "a test", check=False), "wbab ends")
    assert farthest(network, program) < 2e-6


def test_pixels_are_of_the_networks_channels() -> None:
    form = captured("Residual")
    with pytest.raises(UserError, match="pixels are of 1 channels"):
        prepare(form, meet(ENDS["wbab ends"], form, (), (0.5,), (0.5,)))


def test_without_mean_and_std_the_first_layer_reads_numbers() -> None:
    spec = meet(ENDS["wbab ends"], captured("Residual"))
    assert (spec.coded_ends, spec.pixels) == (("stem.0", "head.fc"), ((), ()))
    assert not isinstance(prepare(captured("Residual"), spec).get_submodule("stem.0").input_quantizer, PixelCodes)
