"""A batch norm that does not train, as in detectors: its statistics, scales and shifts stay fixed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


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
