"""Let int8 convolutions run on any processor, for tests with small weights: pairs of products fit 16 bits."""

from __future__ import annotations

import pytest

from models.layers import qconv


def take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use int8 convolutions, whatever the processor does with large weights; skip the test if PyTorch has none."""
    try:
        next(qconv._trials())
    except Exception as fault:
        pytest.skip(f"this PyTorch has no such int8 convolutions: {fault}")
    monkeypatch.setattr(qconv, "trusted", lambda: "")
