"""A layer may compute everything up to its codes by itself, unless another operation reads a value between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.executors import plans
from deploy.operations.base import Codes, Matrix, Operation
from deploy.operations.functions import Combine, Function
from deploy.operations.layers import Affine, Convolution, Quantize
from deploy.operations.pools import MaxPool
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps

BYTES = Steps(1.0, 1.0, 0, 255)


def op(kind: type[Operation], /, *sources: int, **settings: Any) -> Operation:
    return kind(**settings, sources=sources, name=kind.__name__)


def layer(source: int) -> Operation:
    codes = Codes(np.ones((2, 2, 1, 1), np.int16), 2, 2, np.array([-1], np.int32))
    return op(Convolution, source, matrix=Matrix(codes))


def chain(*operations: Operation, picture: tuple[int, ...] = (2, 8, 8)) -> plans.Chain | None:
    """Return the chain of a layer that reads codes and is value 2; a last layer gives the answer."""
    program = Program((op(Quantize, 0, grid=BYTES), layer(1), *operations), picture, (0.5,) * 2, (0.5,) * 2)
    return plans.chain(program, 1, plans.readers(program))


CLAMP = {"kind": "clamp", "settings": (-1.0, 1.74)}
RELU, POOL = {"kind": "relu"}, {"kernel": (2, 2), "stride": (2, 2)}


@pytest.mark.parametrize(
    ("between", "ends", "pools"),
    [
        ([], (-8, 7), 0),
        ([(Function, RELU)], (0, 7), 0),
        ([(MaxPool, POOL)], (-8, 7), 1),
        ([(MaxPool, POOL), (Function, RELU), (MaxPool, POOL)], (0, 7), 2),
        ([(Function, RELU), (Function, RELU)], (0, 7), 0),
        ([(Function, CLAMP)], (-2, 3), 0),  # 1.74 is between codes 3 and 4
        ([(Function, CLAMP), (Function, RELU)], (0, 3), 0),
        ([(Function, {"kind": "clamp", "settings": (2.0, 99.0)}), (MaxPool, POOL)], (4, 7), 1),
        ([(Function, CLAMP), (Function, {"kind": "clamp", "settings": (2.0, 3.0)})], (4, 4), 0),  # 1.74 is raised to 2
    ],
)
def test_activations_and_pools_up_to_codes(between: list[Any], ends: tuple[int, int], pools: int) -> None:
    grid = Steps(2.0, 0.5, -8, 7)
    made = [op(kind, number, **settings) for number, (kind, settings) in enumerate(between, 2)]
    last = len(between) + 3
    found = chain(*made, op(Quantize, last - 1, grid=grid), layer(last))
    assert found is not None
    assert ((found.low, found.high), len(found.pools), found.grid) == (ends, pools, grid)
    assert found.covered == tuple(range(2, last + 1))


CODED, SUM = {"grid": BYTES}, {"kind": "add"}


@pytest.mark.parametrize(
    "behind",
    [
        [],  # the layer itself gives the answer
        [(Function, (2,), RELU)],
        [(Function, (2,), {"kind": "abs"}), (Quantize, (3,), CODED), None],
        [(Affine, (2,), {"multiplier": np.array([-1], np.float32)}), (Quantize, (3,), CODED), None],
        [(Quantize, (2,), {"grid": Signs()}), None],
        [(Quantize, (2,), {"grid": Signs(0.5)}), None],
        [(Quantize, (2,), {"grid": Steps(1.0, 1.0, 0, 256)}), None],
        [(Quantize, (2,), {"grid": Steps(1.0, 1.0, 1, 9)}), None],
        [(Quantize, (2,), CODED), None, (Combine, (4, 2), SUM)],  # two operations read the layer
        [(Function, (2,), RELU), (Quantize, (3,), CODED), None, (Combine, (5, 3), SUM)],  # two operations read the ReLU
        [(Combine, (2, 2), SUM), (Quantize, (3,), CODED), None],  # one operation reads it twice
        # a window of padding alone gives -inf, which the ReLU raises to 0; codes cannot hold -inf
        [
            (MaxPool, (2,), {**POOL, "padding": (1,) * 4, "dilation": (3, 3)}),
            (Function, (3,), RELU),
            (Quantize, (4,), CODED),
            None,
        ],
    ],
)
def test_what_stays_as_it_is(behind: list[Any]) -> None:
    made: list[Operation] = []
    for held in behind:
        number = len(made) + 2
        made.append(op(held[0], *held[1], **held[2]) if held else layer(number))
    assert chain(*made) is None


def test_readers_are_counted_by_value() -> None:
    program = Program(
        (op(Function, 0, kind="relu"), op(Combine, 1, 1, kind="mul"), op(Combine, 1, 2, kind="add")),
        (2, 8, 8),
        (0.5,) * 2,
        (0.5,) * 2,
    )
    assert plans.readers(program) == [[0], [1, 1, 2], [2], []]
