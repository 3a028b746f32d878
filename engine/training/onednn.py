"""Work around two bugs in oneDNN's gradients of strided convolutions in channels-last memory.

1x1 with few inputs: if a group has fewer inputs than one of oneDNN's blocks, 8 or 16 channels, the kernel writes past
its workspace (oneDNN issue 6035). The gradient is wrong, or the process crashes. Pruned shortcuts of residual networks
are such layers.

Depthwise in bf16: if a map is smaller than the kernel, weights that only meet the border get gradients from
uninitialised memory (seen with torch 2.14). The last layers of SSDlite are such layers. In fp32 they are right, and
faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from engine.numerics.precision import in_fp32

BLOCK = 16
"""Channels of oneDNN's largest block."""


def spare(network: nn.Module) -> None:
    """Make the affected layers of a network avoid these kernels from now on. Their values stay; only CPUs need it."""
    for module in network.modules():
        if type(module) is nn.Conv2d and in_fp32(module):
            module.register_forward_pre_hook(_enter)
            module.register_forward_hook(_leave, always_call=True)
        elif isinstance(module, nn.Conv2d) and _is_struck(module):
            module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)  # new strides
            module.register_forward_pre_hook(_plainly)


def _enter(module: nn.Module, given: tuple[Any, ...]) -> Any:
    """Leave autocast for this layer; `_leave` enters it again."""
    context = torch.autocast("cpu", enabled=False)
    context.__enter__()
    module._outside = context  # type: ignore[assignment]
    return tree_map(
        lambda value: value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value, given
    )


def _leave(module: Any, *_: Any) -> None:
    if (context := module.__dict__.pop("_outside", None)) is not None:
        context.__exit__(None, None, None)


def _is_struck(conv: nn.Conv2d) -> bool:
    return max(conv.kernel_size) == 1 < max(conv.stride) and conv.in_channels // conv.groups < BLOCK


def _plainly(_: nn.Module, given: tuple[Any, ...]) -> Any:
    return tree_map(_plain, given)  # the input may be codes with their scale


def _plain(value: Any) -> Any:
    return value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value
