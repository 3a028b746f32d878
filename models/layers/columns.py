"""Convolutions in shapes that suit a GPU's matrix units.

A convolution of pictures becomes a product of matrices: the GPU's own kernels have tiles for many inputs and use only a
small part of them for three. For NIN's first layer in bf16, batch 128, an H200 took 236 us forward and backward, and
takes 100 us this way. Other convolutions get their outputs padded to whole blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 4
"""The most input channels for which this is faster."""
MOST = 2**27
"""The most numbers in the matrix."""
BLOCK = 8
"""Inputs or outputs of a product that a GPU's matrix units process at a time."""


def fits(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether a convolution is faster this way: few inputs, zero padding, and no gradient for the inputs."""
    if not x.is_cuda or x.requires_grad or conv.in_channels > FEW or conv.groups != 1:
        return False
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and tuple(conv.dilation) == (1, 1)
    inputs = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    return plain and inputs > conv.in_channels and x.numel() // conv.in_channels * (inputs + BLOCK) <= MOST


def convolution(conv: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """Compute `conv` without its bias, for a weight of its shape, in channels_last memory."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    (high, wide), (down, right) = conv.kernel_size, conv.stride
    above, left = (int(size) for size in conv.padding)
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, above, above))
    windows = rows.unfold(1, high, down).unfold(2, wide, right)  # (B, H', W', C, high, wide)
    inputs = weight[0].numel()
    matrix = x.new_zeros(*windows.shape[:3], -(-inputs // BLOCK) * BLOCK)
    matrix[..., :inputs].unflatten(-1, windows.shape[3:]).copy_(windows)
    found = F.linear(matrix, F.pad(weight.reshape(len(weight), inputs), (0, -inputs % BLOCK)))
    return found.permute(0, 3, 1, 2)


def spare(x: Tensor, weight: Tensor, groups: int) -> int:
    """Return the number of zero filters that fill the last block of outputs; without them a GPU uses slow kernels."""
    return -len(weight) % BLOCK if x.is_cuda and groups == 1 else 0


def with_spare(weight: Tensor, count: int) -> Tensor:
    """Return a weight with `count` filters of zeros appended."""
    return F.pad(weight, (0, 0) * (weight.ndim - 1) + (0, count)) if count else weight
