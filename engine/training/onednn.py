"""A way around oneDNN's gradient of strided 1x1 convolutions with few inputs, which is wrong or crashes.

In channels-last memory its kernel writes past its workspace where a group has fewer inputs than one of its blocks, 8 or
16 channels (oneDNN issue 6035). Pruned shortcuts of residual networks are such layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

BLOCK = 16
"""Channels of the largest block."""


def spare(network: nn.Module) -> None:
    """Let such layers of a network compute in plain memory from now on; their values stay. Only CPUs need it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_struck(module):
            module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)  # new strides
            module.register_forward_pre_hook(_plainly)


def _is_struck(conv: nn.Conv2d) -> bool:
    return max(conv.kernel_size) == 1 < max(conv.stride) and conv.in_channels // conv.groups < BLOCK


def _plainly(_: nn.Module, given: tuple[Any, ...]) -> Any:
    return tree_map(_plain, given)  # what it is given may be codes and their scale


def _plain(value: Any) -> Any:
    return value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value
