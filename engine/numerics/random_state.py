"""torch's random numbers: seeded on every device, or kept as they were around code that draws from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.system import ranks


def seed(number: int, *, gpus: bool = True) -> None:
    """Seed the generators of the CPU and, once CUDA runs in this process, of all its GPUs.

    Before, torch.manual_seed would leave its seed with the GPUs for the moment when CUDA starts.

    Args:
        gpus: False: the CPU's generator alone.
    """
    torch.default_generator.manual_seed(number)
    if gpus and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


def seed_step(numbers: tuple[int, ...]) -> None:
    """Seed the generators, which dropout draws from, by the position in a run and the rank. One process needs no seed."""
    if ranks.count() > 1:
        mixed = 0
        for number in (*numbers, ranks.rank()):
            mixed = mixed * 1_000_003 + number
        seed(mixed % 2**63)


@contextmanager
def kept(number: int | None = None, *, gpus: bool = True) -> Iterator[None]:
    """Restore the generators of the CPU and, once CUDA runs in this process, of all its GPUs after the context.

    Args:
        number: the seed of these generators inside the context; None leaves them as they are.
        gpus: False: the CPU's alone, for code that draws from no other.
    """
    devices = range(torch.cuda.device_count()) if gpus and torch.cuda.is_initialized() else ()
    with torch.random.fork_rng([*devices]):
        if number is not None:
            seed(number, gpus=gpus)
        yield
