"""Pictures that an executor is given: every executor refuses the same ones, and answers none with an empty answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deploy.executors.choose import MAKERS
from deploy.program import Program
from deploy.run import EXECUTORS
from engine.system.compiled import Unavailable
from tests.deploy.by_hand import program
from tests.deploy.every_operation import CLOSE, EXACT
from tests.deploy.quantized import SIDE, lowered, merged, pictures

FIXED = [name for name in EXECUTORS if name != "auto"]


def made(name: str, whole: Program) -> Callable[[Tensor], Tensor]:
    try:
        return MAKERS[name](whole)
    except Unavailable as fault:
        pytest.skip(str(fault))


def changed(number: float) -> Tensor:
    x = pictures()
    x[1, 2, 3, 4] = number
    return x


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.zeros(2, 3, SIDE + 8, SIDE + 8), r"shape \(3, 24, 24\), not \(3, 16, 16\)"),
        (torch.zeros(2, 1, SIDE, SIDE), r"shape \(1, 16, 16\)"),
        (torch.zeros(3, SIDE, SIDE), r"shape \(16, 16\)"),
        (torch.zeros(0, 4, SIDE, SIDE), r"shape \(4, 16, 16\)"),
        (torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), r"torch\.uint8, not normalised"),
        *((changed(float(number)), "a number that is not finite") for number in ("nan", "inf", "-inf")),
        (changed(1e30).double() * 1e10, "a number that is not finite"),  # beyond fp32
    ],
)
@pytest.mark.parametrize("name", FIXED)
def test_pictures_that_have_no_answer_are_refused(name: str, x: Tensor, why: str) -> None:
    executor = made(name, lowered(merged("Residual", "w4a4")))
    with pytest.raises(ValueError, match=f"pictures (of|with) {why}"):
        executor(x)


@pytest.mark.parametrize("name", FIXED)
def test_large_numbers_and_other_types_are_answered(name: str) -> None:
    """Their sum is beyond fp32, the numbers are not."""
    executor, x = made(name, lowered(merged("Residual", "w4a4"), low_ends=False)), torch.full((2, 3, SIDE, SIDE), 3e38)
    assert len(executor(x)) == 2
    for kind in (torch.float16, torch.float64):
        assert torch.equal(executor(pictures().to(kind)), executor(pictures().to(kind).float()))


@pytest.mark.parametrize("case", [*EXACT, *CLOSE])
@pytest.mark.parametrize("name", FIXED)
def test_no_picture_has_an_empty_answer(name: str, case: str) -> None:
    whole = program(*{**EXACT, **CLOSE}[case])
    found = made(name, whole)(torch.zeros(0, *whole.picture))
    assert (found.shape, found.dtype) == ((0, *whole.answer), torch.float32)
