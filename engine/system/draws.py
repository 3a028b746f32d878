"""torch's random numbers: seeded on every device in use, or kept as they were around code that draws from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed(number: int) -> None:
    """Seed the generators of the CPU and of the GPUs in use.

    torch.manual_seed would also leave its seed with GPUs that are not in use yet, for the moment they are.
    """
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


@contextmanager
def kept(number: int | None = None) -> Iterator[None]:
    """Restore the generators of the CPU and of the GPUs in use after the context.

    Args:
        number: the seed of every generator inside the context; None leaves them as they are.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng([*devices]):
        if number is not None:
            seed(number)
        yield
