"""A network's tensors and attributes, kept as they were around code that runs the network on trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_OWN = frozenset(vars(nn.Module()))
"""The attributes of every module, such as those that hold its parameters and hooks."""


@contextmanager
def kept(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Restore the parameters, the buffers, and the attributes of the code's own, after a run inside the context.

    Some code counts its runs, limits its weights, or keeps what it computes first: a grid, or, in evaluation, values of its
    parameters.

    Yields:
        Copies of the parameters and buffers, by name.
    """
    held = dict(tensors(network))
    before = {name: tensor.detach().clone() for name, tensor in held.items()}
    memory = {name: tensor.data for name, tensor in held.items()}  # code may assign another one to .data
    places = [(module, dict(module._parameters), dict(module._buffers)) for module in network.modules()]
    attributes = [(vars(module), _held(module)) for module in network.modules()]
    try:
        yield before
    finally:
        for name, tensor in held.items():
            if _lies(tensor) != _lies(memory[name]):
                tensor.data = memory[name]
            if not same(tensor.detach(), before[name]):
                memory[name].copy_(before[name])
        for module, parameters, buffers in places:  # a run may have put other tensors in their places
            module._parameters.update({name: held for name, held in parameters.items() if held is not None})
            module._buffers.update(buffers)
        for now, was in attributes:
            for name in [name for name in now if name not in _OWN and name not in was]:
                del now[name]
            for name, (value, content) in was.items():
                now[name] = _restored(value, content)


def tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a network, each once, with its name, without those that lack a shape yet."""
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        if not is_lazy(tensor):
            yield name, tensor


def changed(network: nn.Module, before: dict[str, Tensor]) -> list[str]:
    """Return the names of the parameters and buffers that are not as `kept` has copied them, and of new buffers. NaN equals NaN."""
    own = {name for name, _ in network.named_parameters()}  # code may make a parameter when it first runs
    return [
        name
        for name, tensor in tensors(network)
        if (name not in before and name not in own) or (name in before and not same(before[name], tensor))
    ]


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are of one type and shape and equal bit for bit. NaN equals NaN, as made-up numbers may overflow."""
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _lies(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _held(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Return the attributes of the code's own: each value, and a copy of its content if it is a list, dict or set."""
    own = ((name, value) for name, value in vars(module).items() if name not in _OWN)
    return {name: (value, value.copy() if type(value) in (list, dict, set) else None) for name, value in own}


def _restored(value: Any, content: Any) -> Any:
    if content is not None:
        value.clear()
        (value.extend if isinstance(value, list) else value.update)(content)
    return value
