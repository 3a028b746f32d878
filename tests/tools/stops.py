"""Training commands of few steps, and signals that stop them at a chosen batch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.data.splits import TensorSplit
from tests.conftest import NARROW

CFG = ("--cfg", NARROW)
MODES = {
    "plain": ("prune.train", *CFG),
    "sparse": ("prune.train", "-sr", "--s", "0.01", *CFG),
    "adam": ("prune.train", "--recipe", "seed", *CFG),
    "refine": ("prune.train", "--refine", "pruned.pth"),
    "wqaq": ("quant.wqaq", "--Wbits", "4", "--Abits", "4", *CFG),
    "gap": ("quant.wbwtab", "--W", "3", "--A", "2", "--gap", *CFG),
    "int8": ("quant.wqaq", "--q_type", "1", "--bn_fold", "1", *CFG),
}
STEPS, EPOCHS = 4, 4
BATCHES = STEPS + 2  # batches of an epoch, including the two that are judged


@contextmanager
def stop(at: int, *numbers: int) -> Iterator[None]:
    """Make this process send itself signals (SIGTERM) at the n-th batch of training or judging."""
    left = iter(range(at - 1, -1, -1))

    def counted(batches: Callable) -> Callable:
        def yielding(*arguments: Any, **more: Any) -> Iterator:
            for batch in batches(*arguments, **more):
                if next(left, None) == 0:
                    for number in numbers or (signal.SIGTERM,):
                        os.kill(os.getpid(), number)
                yield batch

        return yielding

    with pytest.MonkeyPatch.context() as patch:
        for name in ("training_batches", "batches"):
            patch.setattr(TensorSplit, name, counted(getattr(TensorSplit, name)))
        yield


def snapshot() -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in Path().rglob("*") if p.is_file()}
