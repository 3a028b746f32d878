"""Int8 convolutions on any processor: with weights within +-63, pairs of products fit 16 bits."""

from __future__ import annotations

import pytest

from tests.tools import int8


@pytest.fixture
def _int8(monkeypatch: pytest.MonkeyPatch) -> None:
    int8.take(monkeypatch)
