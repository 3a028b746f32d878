"""What lets int8 convolutions run on any processor: weights within +-63, whose pairs of products fit 16 bits."""

from __future__ import annotations

import pytest

from models.layers import qconv


@pytest.fixture
def _int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """int8 convolutions are taken, whatever the processor does with large weights."""
    try:
        next(qconv._trials())
    except Exception as fault:
        pytest.skip(f"this PyTorch has no such int8 convolutions: {fault}")
    monkeypatch.setattr(qconv, "trusted", lambda: "")
