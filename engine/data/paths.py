"""Many paths in one array. Reference counting in a list would soon copy its memory into every loader process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class Paths:
    """A sequence of paths, stored as one array of bytes."""

    def __init__(self, paths: Iterable[Path]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._names, self._ends = np.frombuffer(b"".join(names), np.uint8), np.cumsum([0, *map(len, names)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Path:
        return Path(os.fsdecode(self._names[self._ends[number] : self._ends[number + 1]].tobytes()))
