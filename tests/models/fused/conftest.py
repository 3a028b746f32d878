"""Skip tests of the compiled loops without a compiler."""

from __future__ import annotations

import pytest

from engine.system.compiled import Unavailable
from models.fused import library


@pytest.fixture(autouse=True)
def _loops() -> None:
    try:
        library.loaded()
    except Unavailable as fault:
        pytest.skip(str(fault))
