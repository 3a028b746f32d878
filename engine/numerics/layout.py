"""The order of numbers in memory in which convolutions are fastest."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Put the tensors with 4 axes into channels-last memory, in place, and return the network.

    `network.to(memory_format=torch.channels_last)` raises for tensors with 5 axes, such as a 3-D convolution's weight.
    """
    return network._apply(_last)


def _last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
