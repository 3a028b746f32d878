"""Each operation in ONNX Runtime gives the reference's numbers: moves exactly, others up to fp32 rounding."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from deploy.description import OPERATIONS
from deploy.exporting.model import RULES
from deploy.operations.functions import Combine, Function, Kind, Reduce
from deploy.operations.places import Pad
from deploy.operations.pools import AdaptivePool
from deploy.reference.run import run
from tests.deploy.by_hand import given, program
from tests.deploy.every_operation import CLOSE, EXACT
from tests.deploy.exporting.sessions import answers


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", EXACT)
def test_what_moves_numbers_is_exact(name: str, count: int) -> None:
    made = program(*EXACT[name])
    x = given(made, count)
    assert torch.equal(answers(made, x), run(made, x))


@pytest.mark.parametrize("name", CLOSE)
def test_what_computes_numbers_is_close(name: str) -> None:
    made = program(*CLOSE[name])
    x = given(made) * 3
    expected = run(made, x)
    found = answers(made, x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


def test_no_operation_is_left_out() -> None:
    held = [operation for cases in (EXACT, CLOSE) for case in cases.values() for operation in case]
    assert {*map(type, held)} == {*RULES} == {*OPERATIONS.values()}
    for kind, hint in ((Function, Kind), *((k, get_type_hints(k)["kind"]) for k in (Combine, Reduce, AdaptivePool))):
        assert {operation.kind for operation in held if isinstance(operation, kind)} == {*get_args(hint)}
    pads = {operation.kind for operation in held if isinstance(operation, Pad)}
    assert pads == {*get_args(get_type_hints(Pad)["kind"])}
