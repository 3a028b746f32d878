"""The registry of networks: build one by name, or rebuild float and pruned ones from a checkpoint."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from engine.errors import BAD_CHECKPOINT, UserError
from models import check, legacy
from models.channels import Network
from models.check import Misdeclared
from models.layers.bnfold import BNFold_Conv2d_Q, Conv2d_Q
from models.nin import nin, nin_3x3
from models.nin_gc import nin_gc
from models.separable import separable, separable_wide
from models.slimming import slimming

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


def build(arch: str, cfg: Sequence[int] | None = None, classes: int = 10, **more: Any) -> Network:
    """Make a network with fresh weights.

    Args:
        arch: a registered name, or `package.module:function` for a function of the user's, called with
            `cfg` and `classes` and returning a module that follows models.channels.Network.
        cfg: widths, None for the network's own.

    Raises:
        UserError: exit 2 for an unknown name or a cfg that does not fit; for a network of the user's also where it
            does not follow models.channels.Network, see models.check.
    """
    if ":" not in arch:
        return _made(arch, cfg, classes, **more)
    with check.theirs(arch, f"it is called with cfg={cfg and list(cfg)}, classes={classes}; {check.SEE}"):
        network = _made(arch, cfg, classes, **more)
    check.answers(network, arch, classes)
    return network


def _made(arch: str, cfg: Sequence[int] | None, classes: int = 10, **more: Any) -> Network:
    """The network, its declarations compared; what the user's own code raises is let through."""
    if cfg is not None and ((not cfg and ":" not in arch) or min(cfg, default=1) < 1):
        raise UserError(f"cfg {list(cfg)} has widths below 1, or none", "every layer needs a channel")
    function = _imported(arch) if ":" in arch else NETWORKS.get(arch)
    if function is None:
        raise UserError(f"unknown network {arch!r}", f"one of {', '.join(NETWORKS)}, or package.module:function")
    if ":" in arch:
        _check_call(arch, function, {"cfg": cfg, "classes": classes, **more})
    try:
        network = cast(Network, function(cfg=cfg, classes=classes, **more))  # by what it has, not by what it inherits
    except ValueError as fault:
        own = f"its own widths: --cfg {','.join(map(str, NETWORKS[arch]().cfg))}" if arch in NETWORKS else "see --help"
        raise UserError(f"--cfg does not fit {arch}: {fault}", own) from fault
    if ":" in arch:
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


def _imported(arch: str) -> Callable[..., nn.Module]:
    module, _, name = arch.partition(":")
    hint = "name an importable module and a function in it: package.module:function"
    with check.theirs(arch, hint):
        function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise Misdeclared(f"--arch {arch}: {name} is not a function", hint)
    return function


def restore(checkpoint: dict[str, Any], arch: str | None = None) -> Network:
    """Rebuild a float or pruned network from a checkpoint (see engine.checkpoint).

    Args:
        arch: what --arch says. Must be given for a network of the user's: a file alone never causes an import.

    Raises:
        UserError: exit 3 for quantized or merged files, other names or shapes, exit 2 for another --arch.
    """
    stages = [t["stage"] for t in checkpoint["transforms"]]
    if late := [s for s in stages if s in ("quantize", "merge")]:
        raise UserError(
            f"the file holds a network after stage '{late[0]}'; a float one is needed here",
            "start from the float or pruned file it was made from; to judge this one: python -m quant.wqaq --evaluate F",
            BAD_CHECKPOINT,
        )
    model = rebuild(checkpoint, arch)
    load_weights(model, checkpoint["state_dict"], checkpoint["arch"])
    return model


def size(arch: str, cfg: Sequence[int] | None = None, **more: Any) -> int | None:
    """How many parameters `build` would make, no memory taken; None where the constructor needs real tensors.

    Raises:
        UserError: as build.
    """
    if ":" in arch:
        _imported(arch)  # tensors that the module itself makes are to be real
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in _made(arch, cfg, **more).parameters())
    except UserError:
        raise
    except Exception as fault:  # e.g. .item() of a tensor without a value; if it is a fault, build meets it again
        if ":" not in arch and not isinstance(fault, RuntimeError):
            raise
        return None


def rebuild(checkpoint: dict[str, Any], arch: str | None = None) -> Network:
    """The network of a checkpoint with fresh weights."""
    own = checkpoint["arch"]
    if arch not in (None, own):
        hint = f"if you trust that module, say --arch {own}" if ":" in own else "leave --arch out"
        raise UserError(f"the file holds {own}, --arch says {arch}", hint)
    if ":" in own and arch is None:
        raise UserError(
            f"the file holds a network of {own}, which is code outside this toolkit",
            f"if you trust that module, add --arch {own}",
        )
    cfg = checkpoint["cfg"]
    if not isinstance(cfg, list) or not all(type(w) is int and 0 < w <= 65536 for w in cfg):
        raise UserError(f"cfg {cfg!r} is not a list of channel counts", "make the file again", BAD_CHECKPOINT)
    try:
        needed = size(own, cfg, **checkpoint["arch_args"])
        stored = sum(t.numel() for t in checkpoint["state_dict"].values())
        if needed is not None and needed > 2 * stored + 1000:
            raise ValueError(f"cfg {cfg} asks for {needed:,} parameters, the file holds {stored:,} numbers")
        return build(own, cfg, **checkpoint["arch_args"])
    except Misdeclared:  # the code is at fault, not the file
        raise
    except (UserError, TypeError, ValueError, RuntimeError, OverflowError) as fault:
        raise UserError(f"the network cannot be built: {fault}", "make the file again", BAD_CHECKPOINT) from fault


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], arch: str | None = None) -> None:
    """Strict load with a message a person can use.

    Args:
        arch: the name that `model` was built by, so that weights of another network can be told by their shapes.

    Raises:
        UserError: exit 3, with at most five names.
    """
    own = model.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in state]
    wrong += [f"{k} is not known" for k in state if k not in own]
    wrong += [
        f"{k} has shape {tuple(state[k].shape)}, not {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    wrong += [
        f"{k} is {state[k].dtype}, not {own[k].dtype}"
        for k in own
        if k in state and state[k].is_floating_point() != own[k].is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(
            f"the weights do not fit the network: {'; '.join(wrong[:5])}{more}", _other(state, arch), BAD_CHECKPOINT
        )
    model.load_state_dict(state)


def _other(state: dict[str, torch.Tensor], arch: str | None) -> str:
    """The hint for weights that do not fit: the network that they look like, if it is another."""
    try:
        known = legacy.recognise(legacy.renamed(state))
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):  # shapes of no network at all
        known = None
    if known and known[0] != arch:
        return f"they look like those of {known[0]}: --arch {known[0]}?"
    return "was the file made with another --arch or --cfg?"


__all__ = ["NETWORKS", "BNFold_Conv2d_Q", "Conv2d_Q", "build", "load_weights", "names", "rebuild", "restore", "size"]
