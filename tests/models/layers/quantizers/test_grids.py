"""Grids: the codes of inputs as an engine computes them equal the quantizers' own codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from models.layers.quantizers import kinds
from models.layers.quantizers.affine import AffineActivation
from models.layers.quantizers.base import Quantizer, Signs, Steps
from models.layers.quantizers.binary import BinaryActivation
from models.layers.quantizers.dorefa import DorefaActivation
from models.layers.quantizers.lsq import LsqActivation
from models.layers.quantizers.ternary import TernaryActivation
from quant.prepare import input_quantizer
from quant.quantizer_spec import QuantizerSpec
from tests.tools.draws import drawn


def calibrated(bits: int, symmetric: bool, low: float, high: float) -> AffineActivation:
    made = AffineActivation(bits, symmetric)
    made.set_range(torch.tensor(low), torch.tensor(high))
    return made.eval()


def learned(bits: int, negative: bool, step: float) -> LsqActivation:
    made = LsqActivation(bits, negative)
    made.step.data.fill_(step)
    made.seen.fill_(1)
    return made.eval()


MADE = {
    **{f"dorefa {bits}": DorefaActivation(bits) for bits in (2, 4, 8)},
    "affine": calibrated(8, False, -0.7, 5.3),
    "affine symmetric": calibrated(8, True, -3.1, 2.2),
    "affine narrow": calibrated(3, False, 0.0, 1.7),
    "affine of one value": calibrated(8, False, 0.0, 0.0),
    "lsq": learned(4, False, 0.31),
    "lsq signed": learned(4, True, 0.0123),
    "binary": BinaryActivation(),
    "ternary": TernaryActivation(),
}


def codes(grid: Steps | Signs, x: np.ndarray) -> np.ndarray:
    """Compute codes by the grid's definition, in NumPy's fp32."""
    if isinstance(grid, Steps):
        return np.clip(np.rint(x * np.float32(grid.inverse)), grid.low, grid.high)
    if grid.edge is None:
        return np.where(x >= 0, 1, -1)
    return np.where(x > grid.edge, 1, 0) - np.where(x < -grid.edge, 1, 0)


@pytest.mark.parametrize("name", MADE)
@drawn(100, more=st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=50), seed=st.integers(0, 2**31))
def test_an_engine_codes_as_the_quantizer_does(name: str, more: list[float], seed: int) -> None:
    """Codes may differ only for numbers in the middle between two steps, to fp32 precision."""
    quantizer, others = MADE[name], np.random.default_rng(seed).normal(0, 4, 200)
    x = np.concatenate([np.array(more, np.float32), others.astype(np.float32)])
    grid = quantizer.grid()
    assert grid is not None
    with torch.no_grad():
        own = quantizer(torch.from_numpy(x))
    off = codes(grid, x) != own.codes.numpy()
    if isinstance(grid, Signs):
        assert not off.any()
        assert own.scale is None
        return
    assert own.scale is not None
    assert grid.scale == pytest.approx(own.scale.item(), rel=1e-6)
    place = x[off].astype(np.float64) * grid.inverse
    assert (np.abs(place - np.floor(place) - 0.5) < 1e-4).all()


def test_codes_by_hand() -> None:
    assert DorefaActivation(2).grid() == Steps(pytest.approx(0.3), pytest.approx(1 / 3), 0, 3)
    # -0.5 .. 2.05 in 255 steps of 0.01, the real 0 at code 50
    assert calibrated(8, False, -0.5, 2.05).grid() == Steps(pytest.approx(100), pytest.approx(0.01), -50, 205)
    assert calibrated(8, True, -1.27, 1).grid() == Steps(pytest.approx(100), pytest.approx(0.01), -127, 127)
    assert learned(4, True, 0.5).grid() == Steps(2, 0.5, -8, 7)
    assert (BinaryActivation().grid(), TernaryActivation().grid()) == (Signs(), Signs(0.5))


def test_what_has_measured_nothing_codes_nothing() -> None:
    """A quantizer without a measured range passes its input on, as in evaluation."""
    assert AffineActivation(8, False).grid() is None
    assert LsqActivation(4, False).grid() is None


def test_every_quantizer_of_inputs_has_a_grid_but_the_one_that_is_none() -> None:
    for traits in kinds.all_traits().values():
        made: Quantizer = input_quantizer(QuantizerSpec(traits.name, traits.bits[-1]))
        own = type(made).grid is not Quantizer.grid
        assert own is (traits.bits != (32,)), traits.name
