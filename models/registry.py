"""The registry of networks: build a network by name. files.py rebuilds those of checkpoint files."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from engine.cli.archs import is_users_code, library
from engine.errors import UserError
from engine.numerics import random_state
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
"""Networks whose code fixes the number of groups: a grouped layer loses the same number of channels in each group, even
if the groups are small."""
_UNITS = {("separable_wide", "block8.conv"): 2}


def unit(arch: str, layer: str) -> int:
    """Return what a layer's width must be a multiple of, besides the graph's demands, so that a cfg can express it."""
    return _UNITS.get((arch, layer), 1)


def names() -> list[str]:
    return list(NETWORKS)


def widths(arch: str, network: nn.Module) -> list[int] | None:
    """Return the cfg that builds a network of this size; None if it is not a network of this toolkit."""
    return _WIDTHS[arch](network) if arch in _WIDTHS else None


def build(
    arch: str, cfg: Sequence[int] | None = None, classes: int = 10, core: str | None = None, **arch_args: Any
) -> nn.Module:
    """Build a network with fresh weights from its code; commands work on its normal form, see forms.py.

    Args:
        arch: a registered name, `torchvision:NAME`, `timm:NAME`, or `package.module:function` or
            `path/file.py:function` for a user's function. It is called with those of `cfg`, `classes` and `num_classes`
            that it accepts, and may return any module.
        cfg: widths; None for the network's default.
        core: for a user's detector, the modules to train, `backbone,head`; the result is then their Core.

    Raises:
        UserError: for an unknown name, a cfg that does not fit, or an exception of the user's function (exit 2).
    """
    if not is_users_code(arch):
        if core:
            raise UserError(f"--core: {arch} is not a network of your own", "leave --core out")
        return _made(arch, cfg, classes, **arch_args)
    with check.as_misdeclared(arch, f"it is called with cfg={cfg and list(cfg)}, classes={classes}; {check.SEE}"):
        network = _made(arch, cfg, classes, **arch_args)
    network = _unwrapped(network)
    check.module(network, arch)
    if not core:
        return network
    from models.detectors.core import Core

    return Core(network, core.split(","), arch, classes)


def _made(arch: str, cfg: Sequence[int] | None, classes: int = 10, **arch_args: Any) -> nn.Module:
    """Build the network; exceptions of the user's code pass through."""
    if cfg is not None and ((not cfg and ":" not in arch) or min(cfg, default=1) < 1):
        raise UserError(f"cfg {list(cfg)} is empty or has widths below 1", "give every layer at least 1 channel")
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
            f"--arch {arch}: the function returns a {type(network).__name__}, not a torch.nn.Module", check.SEE
        )
    return network


def _unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside nn.DataParallel and torch.compile; they change no output."""
    while True:
        inner = network.module if isinstance(network, nn.DataParallel) else getattr(network, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def _without_core(words: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in words.items() if name != "core"}


def _own_cfg(arch: str) -> str:
    """Return the hint with the default widths of a network of this toolkit."""
    if arch not in NETWORKS:
        return "see --help"
    with torch.device("meta"):
        return f"its own widths: --cfg {','.join(map(str, _WIDTHS[arch](NETWORKS[arch]())))}"


_OFFERED = ("cfg", "classes", "num_classes")


def _words(arch: str, function: Callable[..., nn.Module], words: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a user's function accepts.

    `classes` may be called `num_classes`, and is called so for a function that takes any words (`**words`).

    Raises:
        Misdeclared: if it cannot be called with them. It is checked here, as a TypeError of the call would look like
            one from the function's body.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return words
    takes = signature.parameters
    any_word = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    if "classes" not in takes and ("num_classes" in takes or any_word):  # **words reach a class of torchvision's kind
        words["num_classes"] = words.pop("classes")
    if words["cfg"] and "cfg" not in takes and not any_word:
        raise Misdeclared(f"--cfg: the function of --arch {arch} takes no cfg", "leave --cfg out")
    given = {name for name in words if name in takes or (any_word and words[name] is not None)}
    words = {name: value for name, value in words.items() if name in given or name not in _OFFERED}
    try:
        signature.bind(**words)
    except TypeError as fault:
        raise Misdeclared(
            f"--arch {arch}: it cannot be called with {', '.join(words) or 'no arguments'}: {fault}",
            "begin it with: def function(classes=10):",
        ) from fault
    return words


def outline(arch: str, cfg: Sequence[int] | None = None, classes: int = 10, **arch_args: Any) -> nn.Module:
    """Build a network for its names and shapes only, without memory if its constructor allows that.

    torch's random state does not change.

    Raises:
        UserError: as build.
    """
    if is_users_code(arch):
        user_code.imported(arch)  # first, so that tensors made on import are real
    with random_state.kept():
        try:
            with torch.device("meta"):
                return build(arch, cfg, classes, **arch_args)
        except (Exception, SystemExit):  # e.g. .item() of a meta tensor; a real error is raised again
            return build(arch, cfg, classes, **arch_args)


def size(arch: str, cfg: Sequence[int] | None = None, **arch_args: Any) -> int | None:
    """Return the number of parameters that `build` would make, without memory; None if that needs real tensors.

    Raises:
        UserError: as build.
    """
    if library(arch):
        return None
    if ":" in arch:
        user_code.imported(arch)  # first, so that tensors made on import are real
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in _made(arch, cfg, **_without_core(arch_args)).parameters())
    except UserError:
        raise
    except (Exception, SystemExit) as fault:  # e.g. .item() of a meta tensor; `build` raises a real error again
        if ":" not in arch and not isinstance(fault, RuntimeError):
            raise
        return None
