"""The checkpoint that passes between commands: a plain dict that says what it is.

A superset of the original's {cfg, best_acc, state_dict}. How its bytes are kept safe is in archive.py,
how a network is rebuilt from it in models and quant.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from engine.checkpoint import archive, schema
from engine.checkpoint.archive import bad
from engine.checkpoint.provenance import Origin, provenance
from engine.data.info import DataInfo

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


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; see archive.save for what is promised. Says on stderr when a file is replaced."""
    if path.exists():
        print(f"replaced {path}", file=sys.stderr)
    archive.save(path, checkpoint)


def load(path: Path) -> Checkpoint:
    """Read and check a checkpoint of ours or a file of the original's kind (a state_dict, bare or wrapped).

    Unknown fields are ignored, so that later programs may add some.

    Raises:
        UserError: exit 3 for a missing, damaged, unsafe or non-finite file, or one of a newer format.
    """
    content, checked = archive.load(path)
    if isinstance(content, dict) and content and all(isinstance(v, torch.Tensor) for v in content.values()):
        content = {"state_dict": content}  # a bare state_dict
    if isinstance(content, dict) and content.keys() >= {"identity", "optimizer", "model"}:
        raise bad(path, "the state of a run, not a checkpoint", "name the file that the run wrote")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise bad(path, "no state_dict in it; not a checkpoint")
    ours = content.get("format") is not None
    if ours:
        _check_format(path, content, checked)
        schema.check_fields(path, content)
    elif not checked:
        print(
            f"notice: {path}: no checksum in this format, damage to it could not be noticed; "
            f"re-save with: python -m scripts.convert {shlex.quote(str(path))} NEW.pth",
            file=sys.stderr,
        )
    content["state_dict"] = schema.tensors(path, content["state_dict"], path.stat().st_size)
    return content


def _check_format(path: Path, content: Checkpoint, checked: bool) -> None:
    """Refuse a file of another program, of a later version, or one that has lost what guards it."""
    name, number = content["format"], content.get("format_version")
    if name != FORMAT:
        raise bad(path, f"format {str(name)[:40]!r} is not {FORMAT!r}")
    if not checked:
        raise bad(path, "has lost its checksums; damage could not be noticed")
    if type(number) is int and number > FORMAT_VERSION:
        raise bad(
            path, f"format version {number}; this program reads {FORMAT_VERSION}", "upgrade this program to read it"
        )
    if type(number) is not int or number != FORMAT_VERSION:
        raise bad(path, f"its format version is not {FORMAT_VERSION}")


def has_checksums(path: Path) -> bool:
    """Whether damage to this file would be noticed."""
    return archive.load(path)[1]


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
