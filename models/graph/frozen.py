"""A batch norm that does not train, as detectors have it: its statistics, scales and shifts stay as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class FrozenNorm(nn.BatchNorm2d):
    """What torchvision's FrozenBatchNorm2d computes, with the keys of that: no count of batches.

    Shapes: (B, C, H, W) -> (B, C, H, W).
    """

    @classmethod
    def like(cls, norm: Any) -> FrozenNorm:
        """One that holds the very tensors of torchvision's."""
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
        """It is always at work as in evaluation."""
        return super().train(False)
