"""Plain values as words."""

from __future__ import annotations

from engine.checkpoint.words import counted


def test_one_is_singular() -> None:
    assert [counted(n, "epoch") for n in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]
    assert [counted(n, "class") for n in (1, 10)] == ["1 class", "10 classes"]
    assert [counted(2, noun) for noun in ("box", "batch")] == ["2 boxes", "2 batches"]
