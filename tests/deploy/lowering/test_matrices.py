"""Matrices: narrowest codes for a weight, biases as fine as fp32 is, biases that keep signs, shared storage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy import codes, description
from deploy.lowering import matrices
from deploy.operations.base import Codes
from deploy.operations.layers import Convolution, Linear
from engine.errors import UserError
from models.graph.capture.form import capture
from tests.deploy.quantized import SIDE, lowered, merged
from tests.tools.cases import Head


def rows(*values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int16)


@pytest.mark.parametrize(
    ("values", "bits", "levels", "step", "low"),
    [
        (rows([1, -1], [1, 1]), 1, 2, 2, [-1]),
        (rows([1, -1], [1, 1]), 8, 2, 2, [-1]),  # fewer levels than its bits allow
        (rows([1, 0], [-1, 1]), 2, 3, 1, [-1]),
        (rows([0, 0], [0, 0]), 2, 3, 1, [-1]),
        (rows([-1, 0], [1, -2]), 2, 4, 1, [-2]),
        (rows([1, 0], [-1, 1]), 4, 16, 1, [-8]),
        (rows([7, -8], [0, 1]), 4, 16, 1, [-8]),
        (rows([127, -128], [0, 1]), 8, 256, 1, [-128]),
        (rows([255, -255], [1, 3]), 8, 256, 2, [-255]),  # DoReFa's are odd
        (rows([3, -3], [1, -1]), 2, 4, 2, [-3]),
        (rows([15, -3], [1, -1]), 4, 16, 2, [-15]),
        (rows([255, 0], [-3, 252]), 8, 256, 1, [0, -3]),  # a zero point for each row
        (rows([8, 20], [-15, -2]), 4, 0, 0, []),
        (rows([8, 0], [-15, 0]), 4, 16, 1, [0, -15]),
    ],
)
def test_codes_take_the_narrowest_form(values: Tensor, bits: int, levels: int, step: int, low: list[int]) -> None:
    if not levels:
        with pytest.raises(UserError, match="codes from -15 to 20 do not fit 4 bits"):
            matrices.coded(values, bits)
        return
    found = matrices.coded(values, bits)
    assert (found.values.tolist(), found.levels, found.step, found.low.tolist()) == (values.tolist(), levels, step, low)
    first = found.low.reshape(-1, 1)
    assert ((found.values - first) % step == 0).all()
    assert ((found.values >= first) & (found.values <= first + step * (levels - 1))).all()


WEIGHT = Codes(np.ones((5, 2), np.int16), 2, 2, np.array([-1], np.int32))


def test_a_bias_is_as_fine_as_fp32_is() -> None:
    bias = np.array([1.3, 1.5, 1e6, -0.1, 1e-9])
    found = matrices.scaled(WEIGHT, np.array([0.5, -0.25, 1e-9, 0.0, 3.0], np.float32), bias)
    assert found.weight is WEIGHT
    assert found.bias is None
    assert found.shift is not None
    assert found.shift.tolist() == bias.astype(np.float32).tolist()


def test_the_whole_part_of_a_zero_is_subtracted_from_the_sums() -> None:
    """Sums of bytes are large; fp32 would round their product with the scale to more than the bias holds."""
    scale, zero = np.array([2.0, -0.5, 0.25, 0.0, 1.0], np.float32), np.array([70000.25, -3.75, 8.0, 2.0, 0.0])
    found = matrices.scaled(WEIGHT, scale, np.array([1.0, 0.0, 0.5, 7.0, 0.0]), zero)
    assert found.bias is not None
    assert found.shift is not None
    assert found.bias.tolist() == [-70000, 4, -8, -2, 0]
    assert found.shift.tolist() == [0.5, 0.125, 0.5, 7.0, 0.0]  # 1 - 2 * 0.25, and so on


def test_a_bias_that_is_0_is_not_stored() -> None:
    for scale, zero in ((None, None), (np.ones(5, np.float32), np.zeros(5))):
        found = matrices.scaled(WEIGHT, scale, np.zeros(5), zero)
        assert (found.bias, found.shift) == (None, None)


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("bias", [0.0, 0.5, -0.5, 2.25, -2.25, 3.0, -3.0, 1e-9, -1e-9, 1e30, -1e30])
def test_a_sign_is_that_of_the_real_bias_for_every_sum(bias: float, flip: int) -> None:
    found = matrices.for_sign(WEIGHT, np.full(5, bias), np.full(5, float(flip)) if flip < 0 else None)
    assert found.bias is not None
    assert found.scale is found.shift is None
    sums = np.arange(-40, 41)
    assert ((flip * (sums + int(found.bias[0])) >= 0) == (flip * (sums + bias) >= 0)).all()


def test_errors_of_a_channel_and_of_a_filter_cancel() -> None:
    exact = np.random.default_rng(0).uniform(-126, 126, (6, 5, 3, 4))
    nearest = np.rint(exact).astype(np.int64)
    found = matrices.balanced(nearest, exact, 127)
    errors = found - exact
    assert np.abs((nearest - exact).reshape(6, -1).sum(1)).max() > 1
    assert np.abs(errors.reshape(6, -1).sum(1)).max() <= 0.5
    assert np.abs(errors.reshape(30, -1).sum(1)).max() < 1.5  # balancing a filter may change one more code of a channel
    assert np.abs(errors).max() < 1
    assert (np.abs(errors) > 0.5).mean() < 0.2  # other codes stay the nearest


def test_what_is_rounded_the_other_way_by_hand() -> None:
    """Rounding up by 0.4, 0.3, 0.4 and 0.1 sums to 1.2: one of the two numbers with 0.4 is rounded down instead."""
    exact = np.array([[[[0.6, 1.7, 2.6, 2.9]]]])
    assert matrices.balanced(np.rint(exact).astype(np.int64), exact, 127).tolist() == [[[[0, 2, 3, 3]]]]
    ends = np.array([[[[127.0, -126.7, -126.7, -126.7]]]])  # three errors of 0.3 down: one number is rounded up
    assert matrices.balanced(np.array([[[[127, -127, -127, -127]]]]), ends, 127).tolist() == [
        [[[127, -126, -127, -127]]]
    ]
    assert (
        matrices.balanced(np.zeros((2, 3, 1, 1), np.int64), np.zeros((2, 3, 1, 1)), 127).tolist()
        == np.zeros((2, 3, 1, 1)).tolist()
    )


def test_low_bits_are_symmetric_over_each_row() -> None:
    found, scale = matrices.low_bits(torch.tensor([[1.27, -0.64], [0.0, 0.0], [-2.54, 0.02]]))
    assert found.values.tolist() == [[127, -64], [0, 0], [-127, 1]]
    assert scale.tolist() == np.array([0.01, 1, 0.02], np.float32).tolist()


class Twins(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, bias=False)
        self.other.weight, self.head = self.one.weight, Head(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.other(torch.relu(self.one(torch.relu(self.stem(x)))))))


@pytest.mark.parametrize("kind", ["float", "int8", "wtat", "wbab bacp"])
def test_a_layer_at_two_places_is_stored_once(kind: str) -> None:
    """The network's own file counts it once, too."""
    form = merged("SharedConv", kind)
    program = lowered(form, low_ends=False)
    assert sum(isinstance(op, Convolution) and op.name == "conv" for op in program.operations) == 2
    weights = {op.name: op.matrix.weight for op in program.operations if isinstance(op, (Convolution, Linear))}
    coded = [weight for weight in weights.values() if isinstance(weight, Codes)]
    floats = sum(weight.size for weight in weights.values() if not isinstance(weight, Codes))
    _, found = description.written(program)
    assert len(found.codes) == sum(codes.size(weight.values.size, weight.levels) for weight in coded)
    assert floats <= len(found.numbers) < floats + 200  # scales, biases, norms


def test_a_weight_of_two_layers_is_stored_once() -> None:
    form = capture(Twins().eval(), (3, SIDE, SIDE), "a test", check=False)
    _, found = description.written(lowered(form))
    assert len(found.numbers) == sum(p.numel() for p in form.parameters())
