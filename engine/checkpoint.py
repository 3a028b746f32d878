"""The checkpoint that passes between commands: a plain dict that says what it is.

A superset of the original's {cfg, best_acc, state_dict}. How its bytes are kept safe is in storage.py,
how a network is rebuilt from it in models and quant.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from engine import storage
from engine.data import DataInfo
from engine.storage import bad


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from: the command line, its seed, and the file it started from, if any."""

    command: tuple[str, ...]
    seed: int
    parent: Path | None = None
    parent_sha256: str | None = None


FORMAT, FORMAT_VERSION = "model-compression", 1
Checkpoint = dict[str, Any]


def make(
    model: nn.Module,
    arch: str,
    arch_args: dict[str, Any],
    info: DataInfo,
    metrics: dict[str, Any],
    transforms: list[dict[str, Any]],
    origin: Origin,
) -> Checkpoint:
    """Describe a network completely.

    Args:
        model: the network; its `cfg` attribute gives the widths.
        arch: registry name, or package.module:function.
        arch_args: what the registry needs besides cfg (classes and the like).
        metrics: `accuracy` in percent, of these very weights, and the pictures it was measured on.
        transforms: every stage so far, each a dict with its `stage` and settings.
        origin: the command that made it.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "arch": arch,
        "arch_args": arch_args,
        "cfg": list(cast(list[int], model.cfg)),
        "best_acc": float(metrics["accuracy"]),
        "state_dict": {key: value.detach().cpu().clone() for key, value in model.state_dict().items()},
        "transforms": transforms,
        "dataset": _plain(asdict(info)),
        "metrics": metrics,
        "provenance": provenance(origin),
    }


def provenance(origin: Origin) -> dict[str, Any]:
    """Command, versions, seed and the parent's hash; no clock times, so equal runs write equal bytes."""
    return {
        "command": shlex.join(map(_relative, origin.command)),
        "versions": versions(),
        "seed": origin.seed,
        "parent": _relative(str(origin.parent)) if origin.parent else None,
        "parent_sha256": origin.parent_sha256,
    }


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its flags."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": _installed("torchvision"),
        "model-compression": _installed("model-compression"),
    }


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; see storage.save for what is promised. Says on stderr when a file is replaced."""
    if path.exists():
        print(f"replaced {path}", file=sys.stderr)
    storage.save(path, checkpoint)


def load(path: Path) -> Checkpoint:
    """Read and check a checkpoint of ours or a file of the original's kind (a state_dict, bare or wrapped).

    Raises:
        UserError: exit 3 for a missing, damaged, unsafe or non-finite file, or one of a newer format.
    """
    content, checked = storage.load(path)
    if isinstance(content, dict) and content and all(isinstance(v, torch.Tensor) for v in content.values()):
        content = {"state_dict": content}  # a bare state_dict
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise bad(path, "no state_dict in it; not a checkpoint")
    if content.get("format") not in (None, FORMAT):
        raise bad(path, f"format {content['format']!r} is not {FORMAT!r}")
    if not checked:
        if content.get("format") == FORMAT:
            raise bad(path, "has lost its checksums; damage could not be noticed")
        print(f"notice: {path} carries no checksums: damage to it could not be noticed", file=sys.stderr)
    if content.get("format") == FORMAT:
        if content.get("format_version") != FORMAT_VERSION:
            raise bad(
                path,
                f"format version {content.get('format_version')!r}; this program reads {FORMAT_VERSION}",
                "upgrade",
            )
        missing = [
            key
            for key in ("arch", "arch_args", "cfg", "transforms", "dataset", "metrics", "provenance")
            if key not in content
        ]
        if missing:
            raise bad(path, f"lacks {', '.join(missing)}")
        _check_fields(path, content)
    content["state_dict"] = {key: _tensor(path, key, value) for key, value in content["state_dict"].items()}
    return content


# What a stage says of itself; commands and reports rely on it.
_STAGES = {"quantize": ("spec",), "prune": ("percent", "base", "cfg_before")}


def _check_fields(path: Path, content: Checkpoint) -> None:
    """Refuse fields of another form before anything is built from them."""
    stages, dataset, arguments = content["transforms"], content["dataset"], content["arch_args"]
    if not isinstance(stages, list) or not all(isinstance(t, dict) and isinstance(t.get("stage"), str) for t in stages):
        raise bad(path, "its transforms are no list of stages")
    for stage in stages:
        lacking = [key for key in _STAGES.get(stage["stage"], ()) if key not in stage]
        if lacking:
            raise bad(path, f"its stage {stage['stage']} lacks {lacking[0]}")
    wanted = {"name": str, "label": str, "classes": int, "image_size": int}
    if not isinstance(dataset, dict) or any(type(dataset.get(key)) is not kind for key, kind in wanted.items()):
        raise bad(path, "its dataset is not described")
    if not 1 <= dataset["image_size"] <= 4096:
        raise bad(path, f"its image size {dataset['image_size']} is out of range")
    if not isinstance(arguments, dict) or type(arguments.get("classes")) is not int:
        raise bad(path, "its arch_args name no number of classes")
    if not isinstance(content["arch"], str) or not isinstance(content["metrics"], dict):
        raise bad(path, "its arch or metrics have another form")
    if not isinstance(content.get("best_acc"), float):
        raise bad(path, "its best_acc is no number")


def _tensor(path: Path, key: str, value: Any) -> torch.Tensor:
    """Refuse what is no dense finite tensor of numbers; half, bfloat16 and float64 become float32."""
    if not isinstance(key, str) or not isinstance(value, torch.Tensor):
        raise bad(path, f"state_dict[{key!r}] is a {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
        raise bad(path, f"{key} is not a dense tensor of real numbers")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise bad(path, f"{key} claims shape {tuple(value.shape)} but stores fewer numbers")
    if value.is_floating_point():
        value = value.float()
        wrong = ~torch.isfinite(value)
        if wrong.any():
            first = wrong.nonzero()[0].tolist()
            raise bad(
                path,
                f"{key} holds {int(wrong.sum())} value(s) that are not finite, the first at {first}",
                "take the checkpoint from before the run diverged",
            )
        if key.endswith("running_var") and (value < 0).any():
            raise bad(path, f"{key} holds a negative variance", "take another checkpoint")
    return value


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _relative(text: str) -> str:
    """A path inside the working folder as seen from it; other absolute paths by their last part alone."""
    flag, equals, value = text.partition("=")
    if flag.startswith("-") and equals:
        return f"{flag}={_relative(value)}"
    if not text.startswith("/"):
        return text
    relative = os.path.relpath(text)
    return Path(text).name if relative.startswith("..") else relative


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
