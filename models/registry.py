"""The registry of networks: build one by name. Those of checkpoint files: files.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from engine.errors import UserError
from models import check, user_code
from models.channels import Network
from models.check import Misdeclared
from models.networks.nin import nin, nin_3x3
from models.networks.nin_gc import nin_gc
from models.networks.separable import separable, separable_wide
from models.networks.slimming import slimming

NETWORKS: dict[str, Callable[..., Network]] = {
    "nin": nin,
    "nin_3x3": nin_3x3,
    "nin_gc": nin_gc,
    "separable": separable,
    "separable_wide": separable_wide,
    "slimming": slimming,
}


def names() -> list[str]:
    return list(NETWORKS)


def build(arch: str, cfg: Sequence[int] | None = None, classes: int = 10, **arch_args: Any) -> Network:
    """Make a network with fresh weights.

    Args:
        arch: a registered name, or `package.module:function` or `path/file.py:function` for a function of the user's,
            called with `cfg` and `classes` and returning a module that follows models.channels.Network.
        cfg: widths, None for the network's own.

    Raises:
        UserError: exit 2 for an unknown name or a cfg that does not fit; for a network of the user's also where it
            does not follow models.channels.Network, see models.check.
    """
    if ":" not in arch:
        return _made(arch, cfg, classes, **arch_args)
    with check.user_code(arch, f"it is called with cfg={cfg and list(cfg)}, classes={classes}; {check.SEE}"):
        network = _made(arch, cfg, classes, **arch_args)
    user_code.attach(network, arch)
    check.check_output(network, arch, classes)
    return network


def _made(arch: str, cfg: Sequence[int] | None, classes: int = 10, **arch_args: Any) -> Network:
    """The network, its declarations compared; what the user's own code raises is let through."""
    if cfg is not None and ((not cfg and ":" not in arch) or min(cfg, default=1) < 1):
        raise UserError(f"cfg {list(cfg)} has widths below 1, or none", "every layer needs a channel")
    function = user_code.imported(arch) if ":" in arch else NETWORKS.get(arch)
    if function is None:
        raise UserError(f"unknown network {arch!r}", f"one of {', '.join(NETWORKS)}, or {user_code.FORMS}")
    if ":" in arch:
        _check_call(arch, function, {"cfg": cfg, "classes": classes, **arch_args})
    try:
        with user_code.running(arch):
            network = cast(
                Network, function(cfg=cfg, classes=classes, **arch_args)
            )  # by what it has, not what it inherits
    except ValueError as fault:
        own = f"its own widths: --cfg {','.join(map(str, NETWORKS[arch]().cfg))}" if arch in NETWORKS else "see --help"
        raise UserError(f"--cfg does not fit {arch}: {fault}", own) from fault
    if ":" in arch:
        with user_code.running(arch):
            check.declarations(network, arch, cfg)
    if not hasattr(network, "arch_args"):
        network.arch_args = {}
    return network


def _check_call(arch: str, function: Callable[..., nn.Module], words: dict[str, Any]) -> None:
    """Whether a function takes these words: a TypeError of the call itself would look like one of its body."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(**words)
    except TypeError as fault:
        raise Misdeclared(
            f"--arch {arch}: it cannot be called with {', '.join(words)}: {fault}",
            "begin it with: def function(cfg=None, classes=10):",
        ) from fault


def size(arch: str, cfg: Sequence[int] | None = None, **arch_args: Any) -> int | None:
    """How many parameters `build` would make, no memory taken; None where the constructor needs real tensors.

    Raises:
        UserError: as build.
    """
    if ":" in arch:
        user_code.imported(arch)  # tensors that the module itself makes are to be real
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in _made(arch, cfg, **arch_args).parameters())
    except UserError:
        raise
    except Exception as fault:  # e.g. .item() of a tensor without a value; if it is a fault, build meets it again
        if ":" not in arch and not isinstance(fault, RuntimeError):
            raise
        return None
