"""Whole networks on stock PyTorch: int8 gives the reference's classes, and its codes with few exceptions."""

from __future__ import annotations

import pytest
import torch

from deploy.executors.stock import Stock
from deploy.operations.layers import Quantize
from deploy.program import Program
from deploy.reference.run import run
from models.layers import qconv
from models.layers.quantizers.base import Signs
from tests.deploy.quantized import lowered, merged, pictures, until

SMALL = ("w4a4", "wta8", "wtat", "wtab", "wbab bacp", "wbab cbap", "int7", "w32a4", "w32ab")
"""Weights within +-63, which are exact on any processor, or float weights that read codes."""


def compare(program: Program) -> None:
    """Compare every value in codes, and the classes. The first layer's codes differ by one at most; later layers build on them."""
    x = pictures(16)
    coded = {n: op.grid for n, op in enumerate(program.operations, 1) if isinstance(op, Quantize)}
    for place, (number, grid) in enumerate(coded.items()):
        part = until(program, number)
        executor = Stock(part)
        found, expected = executor(x), run(part, x)
        assert executor.integers
        assert (found == expected).float().mean() > 0.98
        assert place > 1 or (found - expected).abs().max() <= (2 if grid == Signs() else 1)
    answers = Stock(program)(x).argmax(1), run(program, x).argmax(1)
    assert (answers[0] == answers[1]).float().mean() > 0.9


@pytest.mark.usefixtures("_int8")
@pytest.mark.parametrize("name", ["Residual", "ShuffleUnits", "mobilenet_v1", "Concatenation"])
@pytest.mark.parametrize("kind", SMALL)
def test_small_weights_run_in_int8_anywhere(kind: str, name: str) -> None:
    compare(lowered(merged(name, kind), low_ends=False))


@pytest.mark.parametrize("name", ["Residual", "mobilenet_v1"])
@pytest.mark.parametrize("kind", ["w8a8", "lsq", "int8", "int8 one grid", "wbab bacp"])
def test_all_weights_run_in_int8_where_the_processor_can(kind: str, name: str) -> None:
    if why := qconv.trusted():
        pytest.skip(why)
    compare(lowered(merged(name, kind)))


def test_one_picture_is_run_as_many_are() -> None:
    program, x = lowered(merged("Residual", "w4a4")), pictures(5)
    executor = Stock(program, integers=False)
    together = executor(x)
    for place in range(5):
        torch.testing.assert_close(executor(x[place : place + 1])[0], together[place], rtol=1e-5, atol=1e-6)
