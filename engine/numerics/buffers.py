"""A network's buffers and attributes, kept as they were around code that runs the network on trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_OWN = frozenset(vars(nn.Module()))
"""The attributes of every module, such as those that hold its parameters and hooks."""


@contextmanager
def kept(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Restore the buffers, and the attributes of the code's own, after a run inside the context.

    Some code counts its runs, or keeps what it computes first: a grid, or, in evaluation, values of its parameters.

    Yields:
        Copies of the buffers, by name.
    """
    held = dict(network.named_buffers())
    before = {name: buffer.clone() for name, buffer in held.items()}
    buffers = [(module, dict(module._buffers)) for module in network.modules()]
    attributes = [(vars(module), _held(module)) for module in network.modules()]
    try:
        yield before
    finally:
        for name, buffer in held.items():
            buffer.detach().copy_(before[name])
        for module, names in buffers:  # a run may have put other tensors in their places
            module._buffers.update(names)
        for now, was in attributes:
            for name in [name for name in now if name not in _OWN and name not in was]:
                del now[name]
            for name, (value, content) in was.items():
                now[name] = _restored(value, content)


def _held(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Return the attributes of the code's own: each value, and a copy of its content if it is a list, dict or set."""
    own = ((name, value) for name, value in vars(module).items() if name not in _OWN)
    return {name: (value, value.copy() if type(value) in (list, dict, set) else None) for name, value in own}


def _restored(value: Any, content: Any) -> Any:
    if content is not None:
        value.clear()
        (value.extend if isinstance(value, list) else value.update)(content)
    return value
