"""Windows as in torch: pools and transposed convolutions of many sizes give torch's shapes and refuse the same settings."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.operations.base import Operation, Shape, Value
from deploy.operations.layers import Transposed
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from deploy.program import Program
from deploy.reference.run import run

POOLS = [
    (size, kernel, stride, padding, dilation, ceil)
    for size, kernel, stride, dilation, ceil in itertools.product(
        range(1, 9), range(1, 5), range(1, 5), (1, 2), (False, True)
    )
    for padding in range(kernel // 2 + 1)
]
"""Every pool of these sizes; both sides refuse padding wider than half a kernel."""


def torchs(pool: Callable[..., Tensor], size: int, *settings: object) -> Shape | None:
    """Return torch's shape; None if torch refuses."""
    try:
        return tuple(pool(torch.empty(1, 2, size, size, device="meta"), *settings).shape[1:])
    except RuntimeError:
        return None


def ours(operation: Operation, *shape: int) -> Shape | None:
    try:
        return operation.value(Value(shape)).shape
    except ValueError:
        return None


def pools(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> list[tuple]:
    """Return the shapes by the toolkit and by torch, for the max-pool and the average-pool."""
    square, around = (kernel, kernel), (padding,) * 4
    most = MaxPool(square, (stride,) * 2, around, (dilation,) * 2, ceil, sources=(0,), name="it")
    mean = AveragePool(square, (stride,) * 2, around, ceil, sources=(0,), name="it")
    found = [(ours(most, 2, size, size), torchs(F.max_pool2d, size, kernel, stride, padding, dilation, ceil))]
    if dilation == 1:
        found.append((ours(mean, 2, size, size), torchs(F.avg_pool2d, size, kernel, stride, padding, ceil)))
    return found


def larger(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> bool:
    """Return whether a window is larger than the input with its padding."""
    return dilation * (kernel - 1) + 1 > size + 2 * padding


def test_pools_have_torchs_shapes() -> None:
    found = {case: pair for case in POOLS if not larger(*case) for pair in pools(*case)}
    assert not {case: pair for case, pair in found.items() if pair[0] != pair[1]}
    assert all(None not in pair for pair in found.values())


def test_windows_larger_than_the_picture_are_refused() -> None:
    cases = [case for case in POOLS if larger(*case) and not case[-1]]
    assert {pair for case in cases for pair in pools(*case)} == {(None, None)}


def test_larger_windows_with_ceil_are_as_torch_has_them() -> None:
    """torch's ceil_mode gives one window of 3 with stride 2 on 2 places: it reaches beyond the end."""
    cases = [case for case in POOLS if larger(*case) and case[-1]]
    wrong = {case: pair for case in cases for pair in pools(*case) if pair[0] != pair[1]}
    assert not wrong


def test_a_last_window_that_begins_in_the_padding_is_left_out() -> None:
    """5 places with padding 1, windows of 2, stride 3: windows begin at -1, at 2, and at 5, which is padding."""
    kept = MaxPool((2, 2), (3, 3), (1, 1, 1, 1), ceil=True, sources=(0,), name="it")
    assert kept.value(Value((1, 5, 6))).shape == (1, 2, 3)
    assert F.max_pool2d(torch.zeros(1, 5, 6), 2, 3, 1, 1, True).shape == (1, 2, 3)


@pytest.mark.parametrize("padding", [(0, 1, 0, 1), (1, 0, 1, 0), (1, 0, 0, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("kind", [MaxPool, AveragePool])
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
def test_what_is_computed_has_the_shape_that_the_program_says(ceil: bool, kind: Any, padding: Any) -> None:
    for kernel, size in itertools.product((2, 3), (7, 8, 9)):
        pool = kind((kernel,) * 2, (kernel,) * 2, padding, ceil=ceil, sources=(0,), name="it")
        program = Program((pool,), (2, size, size + 1), (0.0,) * 2, (1.0,) * 2)
        found = run(program, torch.randn(1, 2, size, size + 1))
        assert found.shape[1:] == program.answer, f"{kernel}, {size}"
        assert found.isfinite().all()  # no window is all padding


def test_adaptive_pools_have_torchs_shapes() -> None:
    for kind, pool in (("mean", F.adaptive_avg_pool2d), ("max", F.adaptive_max_pool2d)):
        for size, rows, columns in itertools.product((1, 2, 5), (1, 2, 5, 7), (1, 3)):
            operation = AdaptivePool(kind, (rows, columns), sources=(0,), name="it")  # type: ignore[arg-type]
            assert ours(operation, 2, size, size) == torchs(pool, size, (rows, columns))


def test_transposed_convolutions_have_torchs_shapes() -> None:
    draw, accepted, refused = random.Random(0), 0, 0
    for _ in range(1500):
        height, width = draw.randint(1, 5), draw.randint(1, 5)
        kernel, stride, dilation = (tuple(draw.randint(1, 3) for _ in range(2)) for _ in range(3))
        padding, more = ((draw.randint(0, 2), draw.randint(0, 2)) for _ in range(2))
        groups = draw.choice((1, 2, 4))
        weight = torch.zeros(4, 3, *kernel)
        operation = Transposed(
            weight.numpy(), np.zeros(3 * groups, np.float32), stride, padding, more, dilation, groups, sources=(0,), name="it"
        )  # fmt: skip
        found = ours(operation, 4, height, width)
        try:
            given = torch.zeros(1, 4, height, width)
            wanted = F.conv_transpose2d(given, weight, None, stride, padding, more, groups, dilation)
        except RuntimeError:
            wanted = torch.zeros(0)
        if wanted.numel():
            assert found == tuple(wanted.shape[1:]), operation
            accepted += 1
        else:  # torch may also give 0 rows
            assert found is None, operation
            refused += 1
    assert min(accepted, refused) > 300
