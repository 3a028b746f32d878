"""A network's buffers, kept as they were around code that runs the network in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def kept(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Restore the buffers after a run inside the context.

    Yields:
        Their copies, by name.
    """
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield before
    finally:
        for name, buffer in network.named_buffers():
            if name in before:
                buffer.detach().copy_(before[name])
