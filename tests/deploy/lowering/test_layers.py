"""Layers of quantized networks: the program's codes are those of the merged network in float64, whatever the quantizer."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from deploy.executors.stock import Stock
from deploy.lowering.walk import lower
from deploy.operations.base import Codes
from deploy.operations.functions import Reduce
from deploy.operations.layers import Affine, Convolution, Linear, Quantize
from deploy.operations.places import Pad
from deploy.program import Program
from deploy.reference.run import run
from engine.data.augment import normalise
from engine.data.info import DataInfo
from models.graph.capture.form import capture
from models.graph.flow import first_layers, last_layers
from models.graph.normal import NormalForm
from models.layers.fold import Flip, _Merged
from models.layers.quantizers.base import Quantizer
from tests.deploy.quantized import SIDE, SPECS, SUMS, lowered, merged, pictures, trained, until
from tests.tools.cases import Head, conv_bn

NETWORKS = ("Residual", "ShuffleUnits", "mobilenet_v1", "SqueezeExcite", "Concatenation")
FLOAT = ("float", "w3a32", "wta32")
HALF = ("w32a4", "w32ab")
"""Float weights that read codes."""
INTEGER = [kind for kind in SPECS if kind not in (*FLOAT, *HALF, "int7")]
FEWER = [kind for kind in INTEGER if kind not in ("int8 symmetric", "int8 one grid", "int8 folded")]


@torch.no_grad()
def codes_of(form: NormalForm, program: Program, x: Tensor) -> tuple[list[float], Tensor, Tensor]:
    """Return the share of equal codes at each value in codes, in order, and the answers of the network and the program.

    The network runs in float64 with its fp32 scales and biases.
    """
    exact, theirs, own = copy.deepcopy(form).double(), {}, {}
    for name, quantizer in exact.named_modules(remove_duplicate=False):
        if isinstance(quantizer, Quantizer):
            quantizer.register_forward_hook(lambda _, __, found, name=name: theirs.__setitem__(name, found.codes))
    answers = exact(x.double()), run(program, x, own.__setitem__)
    shares = []
    for number, operation in enumerate(program.operations, 1):
        if isinstance(operation, Quantize):
            name = operation.name.removesuffix(".input").removesuffix(".input_quantizer")
            shares.append((theirs[f"{name}.input_quantizer"] == own[number]).double().mean().item())
    return shares, *answers


@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(NETWORKS, INTEGER), *itertools.product(("Residual", "ShuffleUnits", "Concatenation"), SUMS)],
)
def test_every_code_is_that_of_the_network(name: str, kind: str) -> None:
    """Codes may differ only within fp32 rounding of the middle between two codes."""
    form = merged(name, kind)
    shares, expected, found = codes_of(form, lowered(form, low_ends=False), pictures(8))
    assert len(shares) >= 2
    assert min(shares) > 0.999
    assert shares[0] > 0.9999
    if min(shares) == 1:
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_codes_answers_alike(name: str, kind: str) -> None:
    form, x = merged(name, kind), pictures()
    shares, expected, found = codes_of(form, lowered(form), x)
    assert shares == []
    for answer in (found, Stock(lowered(form))(x)):
        assert (answer - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("name", NETWORKS)
def test_float_weights_read_codes(name: str, kind: str) -> None:
    form = merged(name, kind)
    program = lowered(form)
    shares, expected, found = codes_of(form, program, pictures())
    assert min(shares) > 0.999
    if min(shares) == 1:
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not any(isinstance(layer.matrix.weight, Codes) for layer in layers(program).values())


@pytest.mark.parametrize("kind", ["wbab bacp", "wbab cbap", "wtab"])
@pytest.mark.parametrize("name", ["mobilenet_v1", "ShuffleUnits"])
def test_signs_are_exact_where_every_norm_is_folded(name: str, kind: str) -> None:
    form = merged(name, kind)
    shares, _, _ = codes_of(form, lowered(form, low_ends=False), pictures(8))
    assert set(shares) == {1}
    if name == "mobilenet_v1":  # a max-pool is between a layer and its norm
        assert any(isinstance(module, Flip) for module in form.modules()) == (kind != "wbab cbap")


def at(program: Program, name: str) -> int:
    """Return the number of an operation's value by the operation's name."""
    return next(number for number, op in enumerate(program.operations, 1) if op.name == name)


def layers(program: Program) -> dict[str, Any]:
    return {op.name: op for op in program.operations if isinstance(op, (Convolution, Linear))}


def of_the_picture(program: Program, number: int) -> bool:
    """Return whether only a padding and a change of units are between the picture and a value in codes."""
    while number:
        operation = program.operations[number - 1]
        if not isinstance(operation, (Quantize, Pad, Affine)):
            return False
        number = operation.sources[0]
    return True


@pytest.mark.parametrize("name", ["Residual", "SqueezeExcite", "Concatenation"])
@pytest.mark.parametrize("kind", ["w8a8", "w4a4", "wbab bacp", "wtat"])
def test_low_ends_read_codes_of_the_picture_and_have_8_bit_weights(name: str, kind: str) -> None:
    form = merged(name, kind)
    low, plain = (lower(form, (0.2, 0.1, 0.3), (0.2, 0.4, 0.5), low_ends) for low_ends in (True, False))
    (first,), (last,) = first_layers(form), last_layers(form)
    for end in (first, last):
        weight = layers(low)[end].matrix.weight
        assert isinstance(weight, Codes)
        assert (weight.levels, np.abs(weight.values).max()) == (256, 127)
    read = layers(low)[first].sources[0]
    assert low.values[read].grid is not None
    assert of_the_picture(low, read)
    info = DataInfo.unknown(10, SIDE).normalised(low.mean, low.std)
    x = normalise(torch.randint(0, 256, (8, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0)).byte(), info)
    found, expected = (run(until(program, at(program, first)), x) for program in (low, plain))
    assert 0 < (found - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("kind", ["w8a8", "w4a4", "wbab bacp", "wtat"])
def test_float_ends_stay_as_they_are(kind: str) -> None:
    form = merged("Residual", kind)
    found = layers(lowered(form, low_ends=False))
    for layer in ("stem.0", "head.fc"):
        assert not isinstance(found[layer].matrix.weight, Codes)
        module = form.get_submodule(layer)
        stored = module.codes if isinstance(module, _Merged) else module.weight
        assert found[layer].matrix.weight.tolist() == stored.tolist()
        assert found[layer].matrix.bias is None
    assert found["stem.0"].sources == (0,)
    assert isinstance(found["c1"].matrix.weight, Codes)


@pytest.mark.parametrize("kind", FLOAT)
def test_a_network_whose_other_layers_read_numbers_has_float_ends_either_way(kind: str) -> None:
    form = merged("Residual", kind)
    programs = [lowered(form, low_ends) for low_ends in (True, False)]
    for program in programs:
        assert not any(isinstance(op, Quantize) for op in program.operations)
        assert not any(isinstance(layers(program)[name].matrix.weight, Codes) for name in ("stem.0", "head.fc"))
    assert torch.equal(*(run(program, pictures()) for program in programs))


class Padded(nn.Module):
    """An even kernel with one more row of padding below, and two layers that read one value with different borders."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.even = conv_bn(3, 8), nn.Conv2d(8, 8, (4, 2), padding="same", dilation=(1, 3))
        self.one, self.other = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.head = Head(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.even(self.stem(x)))
        return self.head(torch.relu(self.one(x) + self.other(x)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("kind", ["lsq", "int8", "wtat", "wbab cbap"])
def test_borders_are_those_of_the_network(kind: str, mode: str) -> None:
    torch.manual_seed(0)
    form = merge(trained(capture(Padded().eval(), (3, SIDE, SIDE), "a test", check=False), SPECS[kind]))
    form.get_submodule("one").padding_mode = mode
    program = lowered(form, low_ends=False)
    shares, expected, found = codes_of(form, program, pictures())
    assert set(shares) == {1}
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert layers(program)["even"].padding == (1, 2, 1, 2)
    pads = [op for op in program.operations if isinstance(op, Pad)]
    assert [(op.kind, op.sides) for op in pads] == ([] if mode == "zeros" else [(mode, (1, 1, 1, 1))])
    read = {layers(program)["other"].sources, *(op.sources for op in pads or [layers(program)["one"]])}
    assert len(read) == 1  # both layers read these codes
    assert isinstance(program.operations[read.pop()[0] - 1], Quantize)


@pytest.mark.parametrize("kind", FEWER)
@pytest.mark.parametrize("name", ["Residual", "ShuffleUnits", "mobilenet_v1"])
def test_layers_in_fp32_on_codes_are_exact(name: str, kind: str) -> None:
    """All layers read codes, the first one the picture's. Up to the last mean every number equals the reference's."""
    program = lowered(merged(name, kind), low_ends=True)
    (mean,) = [op.sources[0] for op in program.operations if isinstance(op, Reduce)]
    program, x = until(program, mean), pictures()
    assert all(op.matrix.whole(program.values[op.sources[0]]) for op in layers(program).values())
    executor = Stock(program, integers=False)
    assert executor.how.startswith("fp32 arithmetic on codes")
    assert torch.equal(executor(x), run(program, x))
