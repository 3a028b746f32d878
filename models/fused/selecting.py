"""A max-pool between a layer and what reads it, in two passes over memory: source/windows.h computes these formulas on a CPU.

The pool of (z - k) a + c selects the largest z where a > 0, the smallest where a < 0. Activation and quantizer never
decrease, so it may stand before or behind them, and only what its windows select is coded.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.fused.windows import Windows


def selected(z: Tensor, a: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return of each window and channel the z with the largest z a, in fp32, and its number in the window, in bytes.

    Of equal numbers the first is chosen, as torch does.

    Shapes: z: (B H W, C), `windows` over maps of H x W; results: (B H' W', C). Source: torch.nn.MaxPool2d.
    """
    (high, wide), width = windows.before, windows.size[1]
    place = F.max_pool2d(
        (z.float() * a.sign()).reshape(-1, high, wide, len(a)).permute(0, 3, 1, 2),
        windows.size, windows.step, windows.around, return_indices=True,
    )[1]  # fmt: skip
    down, across = (torch.arange(count, device=z.device) for count in windows.after)
    top, left = down[:, None] * windows.step[0] - windows.around[0], across * windows.step[1] - windows.around[1]
    which = (place // wide - top) * width + place % wide - left
    chosen = z.reshape(-1, high * wide, len(a)).gather(1, place.flatten(2).transpose(1, 2))
    return chosen.reshape(-1, len(a)).float(), which.permute(0, 2, 3, 1).reshape(-1, len(a)).to(torch.uint8)


def returned(d: Tensor, which: Tensor, z: Tensor, k: Tensor, e0: Tensor, e1: Tensor, windows: Windows) -> Tensor:
    """Return the gradient of z, in z's dtype: d where a window chose it, and through mean and variance as `spread`.

    Args:
        d: gradient of the chosen numbers, fp32.
    """
    (high, wide), channels = windows.before, z.shape[1]
    pictures, number = len(z) // (high * wide), torch.arange(len(d), device=z.device)[:, None]
    down, across = windows.after
    chosen = which.long()
    row = number // across % down * windows.step[0] - windows.around[0] + chosen // windows.size[1]
    column = number % across * windows.step[1] - windows.around[1] + chosen % windows.size[1]
    place = number // (down * across) * (high * wide) + row * wide + column
    out = torch.zeros(pictures * high * wide, channels, device=z.device, dtype=d.dtype).scatter_add_(0, place, d)
    return (out + e0 + (z.float() - k) * e1).to(z.dtype)
