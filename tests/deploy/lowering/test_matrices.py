"""Matrices: narrowest codes for a weight, biases on the grid of the sums, biases that keep signs, shared storage."""

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


@pytest.mark.parametrize(
    ("scale", "bias"),
    [([0.5, -0.25, 2.0, 1.0, 3.0], [1.3, 1.5, 7.0, -0.1, 1e6]), ([0.5, 0.0, 1e-9, -1e-30, 1.0], [1.3, 3.0, 100.0, -7.0, 0.0])],
)  # fmt: skip
def test_a_bias_lies_on_the_grid_of_the_sums_where_that_reaches(scale: list[float], bias: list[float]) -> None:
    """A bias beyond the grid, or with scale 0, is added in fp32. The weights' real values do not change."""
    given_ = np.array(scale, np.float32)
    found = matrices.on_grid(WEIGHT, given_, np.array(bias))
    assert found.scale is not None
    assert found.bias is not None
    assert isinstance(found.weight, Codes)
    assert np.array_equal(found.weight.values * found.scale[:, None], WEIGHT.values * given_[:, None])
    shift = np.zeros(5) if found.shift is None else found.shift.astype(float)
    assert (found.bias[shift != 0] == 0).all()
    assert (np.abs(found.bias * found.scale.astype(float) + shift - bias) <= np.abs(given_) / 2 + 1e-7).all()


def test_what_a_far_coarser_grid_cannot_hold_is_added_in_fp32() -> None:
    """Such filters have inputs that hardly vary, enlarged by a batch norm; other filters keep their bias on the grid only."""
    weight = Codes(np.full((5, 2), 100, np.int16), 256, 1, np.array([-128], np.int32))
    scale, bias = np.array([0.01, -0.01, 0.02, 0.5, -0.25], np.float32), np.array([0.304, 0.304, 0.5, 3.3, 1.0])
    found = matrices.on_grid(weight, scale, bias)
    assert found.bias is not None
    assert found.shift is not None
    assert found.bias.tolist() == [30, -30, 25, 7, -4]  # 3.3 is 6.6 steps of 0.5; 1.0 is on its grid
    np.testing.assert_allclose(found.shift, [0, 0, 0, -0.2, 0], atol=1e-7)


@pytest.mark.parametrize("scale", [[0.5, -0.25, 2.0, 1.0, 3.0], [0.5, 0.0, 2.0, 1.0, 3.0]], ids=["all", "a dead row"])
def test_few_bits_are_made_finer(scale: list[float]) -> None:
    """A bias rounded to the grid of signs would be off by up to half a weight."""
    bias = np.array([1.3, 1.5, 7.1, -0.1, 0.7])
    found = matrices.on_grid(WEIGHT, np.array(scale, np.float32), bias)
    assert found.scale is not None
    whole = 0 if found.bias is None else found.bias * found.scale.astype(float)
    shift = 0 if found.shift is None else found.shift.astype(float)
    assert (np.abs(whole + shift - bias) <= np.abs(scale) * 0.02 + 1e-6).all()


def test_a_bias_that_is_0_is_not_stored() -> None:
    found = matrices.on_grid(WEIGHT, np.ones(5, np.float32), np.zeros(5))
    assert (found.bias, found.shift) == (None, None)
    assert matrices.beside_grid(WEIGHT, None, np.zeros(5)).shift is None


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
