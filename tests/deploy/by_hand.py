"""Programs made by hand, operation by operation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.operations.base import Codes, Operation
from deploy.program import Program

SHAPE = (3, 8, 7)


def op(kind: type[Operation], /, *sources: int, **settings: Any) -> Operation:
    return kind(**settings, sources=sources, name=f"the {kind.__name__.lower()}")


def program(*operations: Operation, shape: tuple[int, ...] = SHAPE) -> Program:
    return Program(operations, shape, (0.5,) * shape[0], (0.25,) * shape[0])


def codes(values: Any) -> Codes:
    return Codes(np.asarray(values, np.int16), 512, 1, np.array([-256], np.int32))


def drawn(low: int, high: int, *shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(low, high + 1, shape)


def reals(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def given(made: Program, count: int = 3) -> Tensor:
    return torch.randn(count, *made.picture, generator=torch.Generator().manual_seed(0))
