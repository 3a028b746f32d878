"""A batch norm that does not train, as in detectors: its statistics, scales and shifts stay fixed.

torchvision's own code for it would be captured as a chain of products and sums, so a capture replaces it by one operation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class FrozenNorm(nn.BatchNorm2d):
    """A batch norm that computes like torchvision's FrozenBatchNorm2d, with the same keys: no count of batches.

    Shapes: (B, C, H, W) -> (B, C, H, W).
    """

    @classmethod
    def like(cls, norm: Any) -> FrozenNorm:
        """Return a FrozenNorm that shares the tensors of torchvision's `norm`."""
        return cls(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)

    def __init__(self, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, eps: float) -> None:
        super().__init__(len(weight), eps, affine=False, track_running_stats=False)
        del self.weight, self.bias, self.running_mean, self.running_var
        for name, held in (
            ("weight", weight),
            ("bias", bias),
            ("running_mean", running_mean),
            ("running_var", running_var),
        ):
            self.register_buffer(name, held)
        self.eval()

    def train(self, mode: bool = True) -> FrozenNorm:
        """Stay in eval mode, whatever `mode` is."""
        return super().train(False)


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
