"""Results that layers use again in later batches of an evaluation, such as the codes of their weights.

A result is used again only while the tensors that it was made from hold the same numbers. They are compared each time,
which is one pass over memory, so whoever changes a weight, and however, a result cannot be stale.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
_Table = dict[Hashable, tuple[list[Tensor], Any]]

_table: ContextVar[_Table | None] = ContextVar("reuse", default=None)  # each thread has its own


@contextmanager
def reusing() -> Iterator[None]:
    """Let layers keep results within the block, and free them at its end; an inner block shares those of the outer."""
    if _table.get() is not None:
        yield
        return
    before = _table.set({})
    try:
        yield
    finally:
        _table.reset(before)


def reused(key: Hashable, sources: Sequence[Tensor], make: Callable[[], Result]) -> Result:
    """Return make(), or what it returned before in this block if the sources hold the same numbers as then.

    Outside of a block, where a gradient may be needed, and on a GPU, which would have to wait for the comparison, it
    makes the result anew.

    Args:
        key: who keeps the result; it is kept alive, so it cannot be mistaken for another.
        sources: all tensors that the result depends on.
    """
    table = _table.get()
    if table is None or torch.is_grad_enabled() or any(source.device.type != "cpu" for source in sources):
        return make()
    found = table.get(key)
    if found is None or not _same(found[0], sources):
        result = make()
        found = table[key] = [source.detach().clone() for source in sources], result
    return found[1]


def _same(before: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    alike = len(before) == len(now) and all(a.dtype == b.dtype for a, b in zip(before, now, strict=True))
    return alike and all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
