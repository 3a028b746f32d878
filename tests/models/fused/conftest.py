"""Skip tests of the compiled loops without a compiler, and those of evaluation where torch rounds in another order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine.numerics import precision
from engine.system.compiled import Unavailable
from models.fused import library, settled


@pytest.fixture(autouse=True)
def _loops() -> None:
    try:
        library.loaded()
    except Unavailable as fault:
        pytest.skip(str(fault))


@pytest.fixture
def as_torch() -> None:
    if why := settled.trusted():
        pytest.skip(why)


@pytest.fixture
def judging() -> Iterator[None]:
    with torch.no_grad(), precision.computing("exact"):
        yield
