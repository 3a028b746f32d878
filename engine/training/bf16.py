"""The precision of a float network's training: some operations of PyTorch refuse bf16, or mixed types under autocast."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from engine.data.info import DataInfo
from engine.errors import UserError, first_line, no_memory
from engine.numerics import precision, random_state, trials
from engine.system.messages import notice
from engine.training import onednn

PICTURES = 2
"""Of made-up ones; batch norm has no variance of one."""


def settled(asked: str, network: Any, info: DataInfo, device: torch.device, codes: bool) -> precision.Precision:
    """Return the precision that `--precision` means for a network: `auto` takes fp32 where bf16 fails, and says so.

    Args:
        codes: whether the network computes with codes; its other operations are then in fp32.

    Raises:
        UserError: as precision.resolved; for bf16 that is asked for by name and fails (exit 2).
    """
    found = precision.resolved(asked, device)
    if found != "bf16" or codes:
        return found
    why = refusal(network, (info.channels, info.image_size, info.image_size), device)
    if why and asked == "bf16":
        text = f"--precision bf16: an operation of the network fails in bf16: {why}"
        raise UserError(text, "leave --precision at auto, which then takes fp32")
    if why:
        notice(f"training runs in fp32, because an operation of the network fails in bf16: {why}")
    return "fp32" if why else found


def refusal(network: Any, picture: tuple[int, int, int], device: torch.device) -> str:
    """Return why a step forward and backward in bf16 fails, in one line; "" if it works. The network does not change.

    Args:
        picture: channels, rows and columns.
    """
    x = torch.randn(PICTURES, *picture, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        with trials.kept(network), random_state.kept():
            if (fault := _fault(network, x, device, "bf16")) and not _fault(network, x, device, "fp32"):
                return first_line(fault)
    finally:
        network.zero_grad(set_to_none=True)
    return ""


def _fault(network: nn.Module, x: Tensor, device: torch.device, how: precision.Precision) -> Exception | None:
    """Return the error of a step; of a step that fails in fp32, too, training itself tells it."""
    try:
        _step(network, x, device, how)
    except Exception as fault:
        if no_memory(fault):
            raise
        return fault
    return None


def _step(network: nn.Module, x: Tensor, device: torch.device, how: precision.Precision) -> None:
    was_training = network.training
    network.train()
    try:
        watched = onednn.NoIdleTaps() if how == "bf16" and device.type == "cpu" else nullcontext()
        with precision.training(how, device, codes=False):
            leaves = [leaf for leaf in tree_leaves(network(x)) if isinstance(leaf, Tensor) and leaf.requires_grad]
        total = sum((leaf.float().sum() for leaf in leaves), x.new_zeros(()))
        if total.requires_grad:
            with watched:
                total.backward()
    finally:
        network.train(was_training)
