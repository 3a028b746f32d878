"""Measure a compressed network: bytes of its packed file, milliseconds for one picture."""

from __future__ import annotations

from typing import NamedTuple

import torch

from deploy import packed
from deploy.executors.choose import choose
from deploy.packing import packed_of
from deploy.racing.clock import race
from models.files import Opened

SECONDS = 0.5
"""How long to measure."""


class Measured(NamedTuple):
    """The measurements of one network.

    Args:
        size: bytes of its packed file.
        milliseconds: the median for one picture.
    """

    size: int
    milliseconds: float


def measured(opened: Opened) -> Measured:
    """Pack a file's network, and time it with the fastest executor of this machine.

    Raises:
        UserError: as deploy.packing.packed_of.
    """
    held = packed_of(opened, None, None, True, ())
    executor = choose("auto", held.program)
    x = torch.randn(1, *held.program.picture, generator=torch.Generator().manual_seed(0))
    timed = race({executor.name: lambda: executor(x)}, SECONDS)
    return Measured(packed.size(held), timed[executor.name].milliseconds)
