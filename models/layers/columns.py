"""Convolutions in the shapes that a GPU's matrix units like.

Those of pictures are products of matrices: its own have tiles for many inputs, and use a small part of them for three. Of the first
layer of NIN in bf16, batch 128, an H200 took 236 us forward and backward, and takes 100 us so. Others get outputs in whole blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 4
"""Inputs."""
MOST = 2**27
"""Numbers in the matrix."""
BLOCK = 8
"""Inputs or outputs of a product that a GPU's matrix units take at a time."""


def fits(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a convolution is faster so: it has few inputs, zeros around them, and no gradient that they want."""
    if not x.is_cuda or x.requires_grad or conv.in_channels > FEW or conv.groups != 1:
        return False
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and tuple(conv.dilation) == (1, 1)
    inputs = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    return plain and inputs > conv.in_channels and x.numel() // conv.in_channels * (inputs + BLOCK) <= MOST


def convolution(conv: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """What `conv` gives without its bias, for a weight of its shape, in channels_last memory."""
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
    """How many filters of zeros fill the last block of outputs: without them, a GPU falls back to slow kernels."""
    return -len(weight) % BLOCK if x.is_cuda and groups == 1 else 0


def with_spare(weight: Tensor, count: int) -> Tensor:
    """A weight with so many filters of zeros behind its own."""
    return F.pad(weight, (0, 0) * (weight.ndim - 1) + (0, count)) if count else weight
