"""Work around two bugs in oneDNN's gradients of convolutions.

Strided 1x1 with few inputs, in channels-last memory: if a group has fewer inputs than one of oneDNN's blocks, 8 or 16
channels, the kernel writes past its workspace (oneDNN issue 6035). The gradient is wrong, or the process crashes. Pruned
shortcuts of residual networks are such layers.

In bf16, taps that meet padding alone get gradients from uninitialised memory; see engine/numerics/onednn.py. The last layers of
SSDlite are such layers, and those of other networks on small pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from engine.numerics.onednn import has_idle_taps, in_fp32

PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers that compute in autocast's precision; those with codes choose their own, see models/layers/products.py."""
BLOCK = 16
"""Channels of oneDNN's largest block."""


def spare(network: nn.Module) -> None:
    """Make the affected layers of a network avoid these kernels from now on. Their values stay; only CPUs need it.

    The network must call its layers with the input as first argument, as captured graphs do.
    """
    for module in network.modules():
        if type(module) in PLAIN:
            module.register_forward_pre_hook(_enter)
            module.register_forward_hook(_leave, always_call=True)
        if isinstance(module, nn.Conv2d) and _is_struck(module):
            module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)  # new strides
            module.register_forward_pre_hook(_plainly)


class NoIdleTaps(TorchDispatchMode):
    """Raise RuntimeError for a weight's gradient in bf16 where taps are idle: of a call, which `spare` does not reach."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default and args[1].dtype == torch.bfloat16 and args[10][1]:
            _, x, weight, _, stride, padding, dilation, transposed, output_padding = args[:9]
            sides, *rest = (
                tuple(map(int, each)) for each in (x.shape[2:], weight.shape[2:], stride, padding, dilation, padding)
            )
            if has_idle_taps(sides, *rest, tuple(output_padding) if transposed else None):
                raise RuntimeError("taps of a convolution meet padding alone, for which oneDNN's gradient is wrong")
        return func(*args, **(kwargs or {}))


def _enter(module: Any, given: tuple[Any, ...]) -> Any:
    """Leave autocast for a layer that stays in fp32; `_leave` enters it again."""
    if not torch.is_autocast_enabled("cpu") or not in_fp32(module, given[0].shape[-len(module.kernel_size) :]):
        return None
    context = torch.autocast("cpu", enabled=False)
    context.__enter__()
    module._outside = context
    return tree_map(
        lambda value: value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value, given
    )


def _leave(module: Any, *_: Any) -> None:
    if (context := module.__dict__.pop("_outside", None)) is not None:
        context.__exit__(None, None, None)


# products.convolution, which fused segments call in place of a module, leaves bf16 itself
setattr(_enter, "in_segments", True)  # noqa: B010
setattr(_leave, "in_segments", True)  # noqa: B010


def _is_struck(conv: nn.Conv2d) -> bool:
    return max(conv.kernel_size) == 1 < max(conv.stride) and conv.in_channels // conv.groups < BLOCK


def _plainly(_: nn.Module, given: tuple[Any, ...]) -> Any:
    return tree_map(_plain, given)  # the input may be codes with their scale


def _plain(value: Any) -> Any:
    return value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value
