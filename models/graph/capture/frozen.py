"""torchvision's frozen batch norms, captured as batch norms. Their own code would give a chain of products and sums."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def is_frozen(module: nn.Module) -> bool:
    """Return whether a module is torchvision's FrozenBatchNorm2d, not a subclass."""
    known = sys.modules.get("torchvision.ops.misc")  # None if it was not imported: then the network cannot hold one
    return known is not None and type(module) is known.FrozenBatchNorm2d


@contextmanager
def as_norms(model: nn.Module) -> Iterator[None]:
    """Make frozen batch norms compute by one operation, inside the context. In fp32 the last digits may differ."""
    found = [module for module in model.modules() if is_frozen(module)]
    for module in found:
        module.forward = _one_operation(module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in found:
            del module.forward


def _one_operation(module: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        return F.batch_norm(
            x, module.running_mean, module.running_var, module.weight, module.bias, False, 0.0, module.eps
        )

    return forward
