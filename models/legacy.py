"""Files of the original: its key names, its missing cfg, its `module.` prefixes, read as checkpoints of ours.

Its quantized files hold latent float weights, and load as the float network that they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

from engine.errors import BAD_CHECKPOINT, UserError

# Children of the original's Sequential: 0 and 1 are the first conv and BN, 4 and 8 are pools.
_BLOCK = {0: 1, 1: 1, 2: 2, 3: 3, 5: 4, 6: 5, 7: 6, 9: 7, 10: 8, 11: 9, 12: 9}
_BARE = {0: "conv", 1: "bn", 11: "conv", 12: "bn"}
_KEY = re.compile(r"(?:tnn_bin|dorefa|quan_model|model)\.(\d+)\.(.+)")
_UNKNOWN = {"name": "unknown", "label": "unknown", "mean": [0.0] * 3, "std": [1.0] * 3, "image_size": 32}


def adopt(content: dict[str, Any], path: Path | str) -> dict[str, Any]:
    """Turn {state_dict[, cfg][, best_acc]} of the original into a checkpoint of ours; ours pass unchanged.

    Raises:
        UserError: exit 3 if the keys are those of no network known here.
    """
    if "format" in content:
        return content
    state = _without_prefix(content["state_dict"])
    state = {_renamed(key): value for key, value in state.items()}
    arch, cfg = _recognise(state, path)
    given = content.get("cfg")
    if given is not None and [int(w) for w in given] != cfg:
        raise UserError(
            f"{path}: its cfg {list(map(int, given))} is not that of its weights, {cfg}",
            "make the file again",
            BAD_CHECKPOINT,
        )
    for key in [k for k in state if k.endswith("running_mean")]:
        counter = key.replace("running_mean", "num_batches_tracked")
        state.setdefault(counter, torch.tensor(0))
    classes = len(state["block9.conv.weight"])
    print(f"notice: {path} is a file of the original's kind; read as {arch} {cfg}", file=sys.stderr)
    accuracy = float(content.get("best_acc", 0.0))
    return {
        "format": "original",
        "arch": arch,
        "arch_args": {"classes": classes},
        "cfg": cfg,
        "best_acc": accuracy,
        "state_dict": state,
        "transforms": [{"stage": "original"}],
        "dataset": {**_UNKNOWN, "classes": classes},
        "metrics": {"accuracy": accuracy, "judged_on": "unknown"},
    }


def _without_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DataParallel puts `module.` before every key; before some alone, it is a name like any other."""
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _renamed(key: str) -> str:
    found = _KEY.fullmatch(key)
    if not found or int(found[1]) not in _BLOCK:
        return key
    number, rest = int(found[1]), found[2]
    middle = f"{_BARE[number]}." if number in _BARE else ""
    return f"block{_BLOCK[number]}.{middle}{rest}"


def _recognise(state: dict[str, torch.Tensor], path: Path | str) -> tuple[str, list[int]]:
    weights = [state.get(f"block{n}.conv.weight") for n in range(1, 10)]
    if any(w is None or w.ndim != 4 for w in weights):
        raise UserError(
            f"{path}: its weights are those of no network known here ({', '.join(list(state)[:3])}, ...)",
            "files of this toolkit, and of the original's nin and nin_gc, can be read",
            BAD_CHECKPOINT,
        )
    cfg = [len(w) for w in weights[:8]]  # type: ignore[arg-type]
    if weights[1].shape[1] * 2 == cfg[0]:  # type: ignore[union-attr]
        return "nin_gc", cfg
    return ("nin" if weights[3].shape[-1] == 5 else "nin_3x3"), cfg  # type: ignore[union-attr]
