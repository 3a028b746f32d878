"""Fast products on a GPU that are exact for codes: compared with fp64 once for each shape, and used only if equal.

A GPU library chooses its algorithm by shape. Winograd and FFT algorithms are not exact for integers. Direct ones are
exact, also in TF32, whose 10 mantissa bits represent codes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_exact: dict[Hashable, bool] = {}
"""For everything that a product's algorithm depends on, whether its fast version was exact."""


def product(times: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, key: Hashable) -> Tensor:
    """Return times(x, weight) of codes, exactly, in fp32.

    Args:
        key: what the algorithm depends on besides the shapes: stride, padding and so on.
    """
    key = (key, x.device, tuple(x.shape), x.stride(), tuple(weight.shape))
    if key not in _exact:
        sure = _sure(times, x.detach(), weight.detach())
        with _fast(), torch.no_grad():
            _exact[key] = torch.equal(times(x.detach(), weight.detach()), sure)
    if not _exact[key]:
        return _sure(times, x, weight)
    with _fast():
        return times(x, weight)


def _sure(times: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    return times(x.double(), weight.double()).to(x.dtype)


@contextmanager
def _fast() -> Iterator[None]:
    """Allow TF32 within the block."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
