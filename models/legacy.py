"""Read the original repository's files as checkpoints of this toolkit, with their key names, prefixes and missing cfg.

Its quantized files hold latent float weights and load as float networks.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint.format import Checkpoint, Foreign, Metrics
from engine.checkpoint.history import Original
from engine.checkpoint.provenance import Provenance
from engine.cli.naming import called
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, UserError
from engine.system.messages import notice

# Children of the original's Sequential: 0 and 1 are the first conv and BN, 4 and 8 are pools.
_BLOCK = {0: 1, 1: 1, 2: 2, 3: 3, 5: 4, 6: 5, 7: 6, 9: 7, 10: 8, 11: 9, 12: 9}
_BARE = {0: "conv", 1: "bn", 11: "conv", 12: "bn"}
_ARTICLE = {0: "block1.conv", 1: "block1.bn", 3: "block2.conv", 4: "block2.bn", 6: "block3.conv", 7: "block3.bn"}
_KEY = re.compile(r"(?:tnn_bin|dorefa|quan_model|model)\.(\d+)\.(.+)")


def adopt(found: Checkpoint | Foreign, path: Path | str) -> Checkpoint:
    """Turn a file of the original repository into a checkpoint; checkpoints of this toolkit pass unchanged.

    Raises:
        UserError: if the keys belong to no known network (exit 3).
    """
    if isinstance(found, Checkpoint):
        return found
    try:
        return _adopted(found, path)
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError, OverflowError) as fault:
        raise UserError(
            f"{path}: not in the original repository's format ({fault})", "name another file", BAD_CHECKPOINT
        ) from fault


def _adopted(found: Foreign, path: Path | str) -> Checkpoint:
    state = renamed(found.state_dict)
    known = recognise(state)
    if known is None:
        own, file = "--arch package.module:function", shlex.quote(str(path))
        raise UserError(
            f"{path}: its weights belong to no known network ({', '.join(map(str, list(state)[:3]))}, ...)",
            f"if it is of a network of your own: {called(f'scripts.convert {file} NEW.pth {own} --cfg W,W,...')}, or "
            f"{called(f'prune.train {own} --weights {file}')}",
            BAD_CHECKPOINT,
        )
    arch, cfg, arch_args = known
    if found.cfg is not None and _widths(found.cfg) != cfg:
        raise UserError(
            f"{path}: its cfg {str(found.cfg)[:80]} does not match its weights, whose cfg is {cfg}",
            "make the file again",
            BAD_CHECKPOINT,
        )
    classes = len(state["linear.weight" if arch == "slimming" else "block9.conv.weight"])
    elsewhere = not _is_theirs(found.state_dict)
    what = "holds weights and does not describe them" if elsewhere else "is in the original repository's format"
    notice(f"{path} {what}; read as {arch} {cfg}")
    return Checkpoint(
        arch=arch,
        arch_args={"classes": classes, **arch_args},
        cfg=cfg,
        state_dict=state,
        history=(Original(elsewhere=elsewhere),),
        dataset=DataInfo.unknown(classes),
        metrics=Metrics(stored_accuracy(found)),
        provenance=Provenance(),
        format="original",
        sha256=found.sha256,
        checksums=found.checksums,
    )


def _is_theirs(state: dict[str, torch.Tensor]) -> bool:
    """Return whether a network of this toolkit has the original repository's key names; other networks may share them."""
    return any(_renamed(key) != key for key in unwrapped(state))


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename keys to this toolkit's names: strip prefixes, name the original's Sequential children, add BN counters.

    Raises:
        ValueError: if two keys get the same name.
    """
    old = unwrapped(state)
    state = {_renamed(key): value for key, value in old.items()}
    if len(state) < len(old):
        raise ValueError("two of its keys mean the same tensor")
    for key in [k for k in state if k.endswith("running_mean")]:
        state.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return state


def stored_accuracy(found: Foreign) -> float:
    """Return best_acc of an old file in percent, from a number or a tensor of one; 0 if there is none.

    Raises:
        ValueError: for any other value.
    """
    accuracy = float(found.best_acc or 0.0)
    if not 0 <= accuracy <= 100:
        raise ValueError(f"its best_acc is {accuracy:g}")
    return accuracy


def _widths(cfg: Any) -> list[int]:
    """Return the widths in an old file: a list, tuple, tensor or list of tensors, in which 'A' and 'M' are pools."""
    if isinstance(cfg, torch.Tensor):
        if cfg.numel() > 1000:  # a tensor can claim any length
            raise ValueError(f"its cfg has {cfg.numel()} widths")
        cfg = cfg.tolist()
    items = [w.item() if isinstance(w, torch.Tensor) else w for w in cfg if w not in ("A", "M")]
    if any(isinstance(w, (bool, str)) or w != int(w) for w in items):
        raise ValueError(f"its cfg {str(cfg)[:80]} is not a list of widths")
    return [int(w) for w in items]


def unwrapped(state: dict[str, torch.Tensor], wanted: set[str] | None = None) -> dict[str, torch.Tensor]:
    """Strip the `module.` of DataParallel and the `_orig_mod.` of torch.compile from all keys, in either order.

    A prefix is stripped only if every key has it; otherwise it is an ordinary name.

    Args:
        wanted: the keys of the network, if it is known, as its own child may be called `module`. The prefixes of
            training programs (`model.`, `net.`, `network.`) are then stripped, too.
    """
    left = {"module.", "_orig_mod.", *(("model.", "net.", "network.") if wanted else ())}
    while state and not set(state) <= (wanted or set()):
        prefix = next((p for p in left if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        left.remove(prefix)
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _renamed(key: str) -> str:
    article = re.fullmatch(r"features\.(\d+)\.(\w+)", key)
    if article and int(article[1]) in _ARTICLE:
        return f"{_ARTICLE[int(article[1])]}.{article[2]}"
    found = _KEY.fullmatch(key)
    if not found or int(found[1]) not in _BLOCK:
        return key
    number, rest = int(found[1]), found[2]
    middle = f"{_BARE[number]}." if number in _BARE else ""
    return f"block{_BLOCK[number]}.{middle}{rest.replace('conv2.', 'conv.')}"


def recognise(state: dict[str, torch.Tensor]) -> tuple[str, list[int], dict[str, Any]] | None:
    """Return architecture, cfg and further arguments, recognised by the shapes of renamed weights; None if unknown."""
    widths = {
        key.split(".")[0]: len(value) for key, value in state.items() if re.fullmatch(r"block\d\.conv\.weight", key)
    }
    cfg = [widths[name] for name in sorted(widths)]
    if len(cfg) == 3 and "linear.weight" in state:
        return "slimming", cfg, {}
    if len(cfg) != 9 or any(state[f"{name}.conv.weight"].ndim != 4 for name in widths):
        return None
    cfg = cfg[:8]
    if "block2.conv1.weight" in state:
        wide = state["block3.conv1.weight"].shape[1] == 2  # its depthwise convolutions read channels in pairs
        cfg = [cfg[0], *(width // 2 for width in cfg[1:])] if wide else cfg
        middle = [len(state[f"block{n}.conv1.weight"]) for n in range(2, 9)]
        multipliers = [m // w for m, w in zip(middle, cfg, strict=False)]
        return "separable_wide" if wide else "separable", cfg, {"multipliers": multipliers}
    if state["block2.conv.weight"].shape[1] * 2 == cfg[0]:
        return "nin_gc", cfg, {}
    return ("nin" if state["block4.conv.weight"].shape[-1] == 5 else "nin_3x3"), cfg, {}


def known_arch(state: dict[str, torch.Tensor]) -> str | None:
    """Return the network of this toolkit that the weights belong to, under any prefix; None for other weights."""
    try:
        known = recognise(renamed(state))
    except (
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ):  # impossible shapes
        return None
    return known[0] if known else None


def other(state: dict[str, torch.Tensor], arch: str | None) -> str:
    """Return the hint for weights that do not fit: the network that they look like, if it is another."""
    known = known_arch(state)
    if known and known != arch:
        return f"they look like weights of {known}: give --arch {known}"
    return "was the file made with another --arch or --cfg?"
