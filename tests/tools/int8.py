"""Lets int8 convolutions run on any processor, for tests whose weights are small: pairs of their products fit 16 bits."""

from __future__ import annotations

import pytest

from models.layers import qconv


def take(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken, whatever the processor does with large weights; where this PyTorch has none, the test is skipped."""
    try:
        next(qconv._trials())
    except Exception as fault:
        pytest.skip(f"this PyTorch has no such int8 convolutions: {fault}")
    monkeypatch.setattr(qconv, "trusted", lambda: "")
