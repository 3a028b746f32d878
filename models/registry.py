"""The registry of networks: build one by name. Those of checkpoint files: files.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from engine.cli.archs import is_users_code, library
from engine.errors import UserError
from models import check, libraries, user_code
from models.check import Misdeclared
from models.networks import nin as _nin, separable as _separable, slimming as _slimming
from models.networks.nin import nin, nin_3x3
from models.networks.nin_gc import nin_gc
from models.networks.separable import separable, separable_wide
from models.networks.slimming import slimming

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "nin": nin,
    "nin_3x3": nin_3x3,
    "nin_gc": nin_gc,
    "separable": separable,
    "separable_wide": separable_wide,
    "slimming": slimming,
}
_WIDTHS: dict[str, Callable[[nn.Module], list[int]]] = {
    **dict.fromkeys(("nin", "nin_3x3", "nin_gc"), _nin.widths),
    "separable": _separable.widths, "separable_wide": _separable.wide_widths, "slimming": _slimming.widths,
}  # fmt: skip


FIXED_GROUPS = ("nin_gc",)
"""Networks whose code fixes the numbers of groups: a grouped layer loses as many channels in each, however few they are."""
_UNITS = {("separable_wide", "block8.conv"): 2}


def unit(arch: str, layer: str) -> int:
    """What a layer's width is a multiple of beside what the graph asks for: a cfg could not say another one."""
    return _UNITS.get((arch, layer), 1)


def names() -> list[str]:
    return list(NETWORKS)


def widths(arch: str, network: nn.Module) -> list[int] | None:
    """The cfg that builds a network of this size; None where the network is none of ours."""
    return _WIDTHS[arch](network) if arch in _WIDTHS else None


def build(
    arch: str, cfg: Sequence[int] | None = None, classes: int = 10, core: str | None = None, **arch_args: Any
) -> nn.Module:
    """Make a network with fresh weights, as its code makes it. What commands work on is its normal form: files.py.

    Args:
        arch: a registered name, `torchvision:NAME`, `timm:NAME`, or `package.module:function` or
            `path/file.py:function` for a function of the user's. It is called with those of `cfg`, `classes` and
            `num_classes` that it takes, and gives any module.
        cfg: widths, None for the network's own.
        core: of a detector of the user's the modules that are trained, `backbone,head`; these are given then.

    Raises:
        UserError: exit 2 for an unknown name, a cfg that does not fit, and what a function of the user's raises.
    """
    if not is_users_code(arch):
        if core:
            raise UserError(f"--core: {arch} is no network of your own", "leave --core out")
        return _made(arch, cfg, classes, **arch_args)
    with check.user_code(arch, f"it is called with cfg={cfg and list(cfg)}, classes={classes}; {check.SEE}"):
        network = _made(arch, cfg, classes, **arch_args)
    if not core:
        return network
    from models.detectors.core import Core

    return Core(network, core.split(","), arch, classes)


def _made(arch: str, cfg: Sequence[int] | None, classes: int = 10, **arch_args: Any) -> nn.Module:
    """The network; what the user's own code raises is let through."""
    if cfg is not None and ((not cfg and ":" not in arch) or min(cfg, default=1) < 1):
        raise UserError(f"cfg {list(cfg)} has widths below 1, or none", "every layer needs a channel")
    if library(arch):
        if cfg:
            raise UserError(f"--cfg: {arch} has its own widths", "leave --cfg out")
        return libraries.build(arch, classes)
    function = user_code.imported(arch) if ":" in arch else NETWORKS.get(arch)
    if function is None:
        raise UserError(f"unknown network {arch!r}", f"one of {', '.join(NETWORKS)}, or {user_code.FORMS}")
    words: dict[str, Any] = {"cfg": cfg, "classes": classes, **arch_args}
    if ":" in arch:
        words = _words(arch, function, words)
    try:
        with user_code.running(arch):
            network = function(**words)
    except ValueError as fault:
        raise UserError(f"--cfg does not fit {arch}: {fault}", _own_cfg(arch)) from fault
    if not isinstance(network, nn.Module):
        raise Misdeclared(
            f"--arch {arch}: the function gives a {type(network).__name__}, not a torch.nn.Module", check.SEE
        )
    return network


def _without_core(words: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in words.items() if name != "core"}


def _own_cfg(arch: str) -> str:
    """The widths that a network of ours has by itself, in words."""
    if arch not in NETWORKS:
        return "see --help"
    with torch.device("meta"):
        return f"its own widths: --cfg {','.join(map(str, _WIDTHS[arch](NETWORKS[arch]())))}"


def _words(arch: str, function: Callable[..., nn.Module], words: dict[str, Any]) -> dict[str, Any]:
    """Of these words those that a function of the user's takes; `classes` may be called `num_classes`.

    Raises:
        Misdeclared: where it cannot be called so: a TypeError of the call would look like one of its body.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return words
    takes = signature.parameters
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        if "classes" not in takes and "num_classes" in takes:
            words["num_classes"] = words.pop("classes")
        if words["cfg"] and "cfg" not in takes:
            raise Misdeclared(f"--cfg: the function of --arch {arch} takes no cfg", "leave --cfg out")
        words = {name: value for name, value in words.items() if name in takes or name not in ("cfg", "classes")}
    try:
        signature.bind(**words)
    except TypeError as fault:
        raise Misdeclared(
            f"--arch {arch}: it cannot be called with {', '.join(words)}: {fault}",
            "begin it with: def function(classes=10):",
        ) from fault
    return words


def outline(arch: str, cfg: Sequence[int] | None = None, classes: int = 10, **arch_args: Any) -> nn.Module:
    """A network as `build` makes it, for its names and shapes alone: without memory, where its constructor bears that.

    Torch's random state stays as it is.

    Raises:
        UserError: as build.
    """
    if is_users_code(arch):
        user_code.imported(arch)  # tensors that the module itself makes are to be real
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build(arch, cfg, classes, **arch_args)
        except UserError:
            raise
        except (Exception, SystemExit):  # e.g. .item() of a tensor without a value; a fault is met again
            return build(arch, cfg, classes, **arch_args)


def size(arch: str, cfg: Sequence[int] | None = None, **arch_args: Any) -> int | None:
    """How many parameters `build` would make, no memory taken; None where the constructor needs real tensors.

    Raises:
        UserError: as build.
    """
    if library(arch):
        return None
    if ":" in arch:
        user_code.imported(arch)  # tensors that the module itself makes are to be real
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in _made(arch, cfg, **_without_core(arch_args)).parameters())
    except UserError:
        raise
    except Exception as fault:  # e.g. .item() of a tensor without a value; if it is a fault, build meets it again
        if ":" not in arch and not isinstance(fault, RuntimeError):
            raise
        return None
