"""The pictures a command works on: those of its flags, else those its file was made for; refused where they do not fit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

from engine.checkpoint.format import Checkpoint
from engine.data import catalogue, image_folder
from engine.data.splits import Data
from engine.errors import BAD_CHECKPOINT, BAD_DATA, USAGE, UserError


def open_data(args: argparse.Namespace, where: torch.device, content: Checkpoint | None = None) -> Data:
    """The data set of the flags, else that of a checkpoint, else `auto`.

    Args:
        content: the checkpoint whose network will see the pictures.

    Raises:
        UserError: exit 3 if that network has too few classes or others, exit 2 if --classes says too few or it was
            trained on what --val holds out.
    """
    known = (content or {}).get("dataset", {})
    unknown = known.get("name") == "unknown"  # a file of the original's
    if unknown:
        known = {}
    name = args.dataset or known.get("name", "auto")
    if name == "auto" and image_folder.has_folders(args.data):
        print(
            f"notice: {args.data} holds train/ and test/ folders; to take their pictures, add --dataset imagefolder",
            file=sys.stderr,
        )
    same = known if args.dataset in (None, known.get("name")) else {}
    size, flip = args.image_size or same.get("image_size"), same.get("flip") if args.flip is None else args.flip
    try:
        data = catalogue.load(name, args.data, where, size, args.val, args.num_workers, flip)
    except UserError as fault:
        if args.dataset or name != "imagefolder" or fault.code != BAD_DATA or image_folder.has_folders(args.data):
            raise
        hint = f"the file was trained on a folder of pictures called {known['label']}: add --data DIR"
        raise UserError(str(fault), hint, BAD_DATA) from fault
    if known.get("name") == data.info.name:
        data = data.normalised(known["mean"], known["std"])
    if known and known["classes"] != data.info.classes:
        raise UserError(
            f"{data.info.label} has {data.info.classes} classes, the file was made for {known['classes']}",
            "name the data set that the network was made for with --dataset and --data",
            BAD_CHECKPOINT,
        )
    fresh = getattr(args, "from_scratch", None) is not None  # takes widths from the file, and no weights
    if content and not fresh and (unknown or known["name"] == data.info.name):
        _check_held_out(args.val, content["transforms"])
    _check_names(known.get("names", []), data.info.names, asked_for=args.dataset is not None)
    asked = getattr(args, "classes", None)
    if content and asked not in (None, content["arch_args"]["classes"]):
        raise UserError(f"--classes {asked}, but the file has {content['arch_args']['classes']}", "leave --classes out")
    classes = content["arch_args"]["classes"] if content else asked or data.info.classes
    if classes < data.info.classes:
        raise UserError(
            f"{data.info.label} has {data.info.classes} classes, the network {classes}",
            "name the data set that the network was made for with --dataset and --data",
            BAD_CHECKPOINT if content else USAGE,
        )
    return data


def _check_names(was: Sequence[str], now: Sequence[str], asked_for: bool) -> None:
    """As many classes, but others: training on with them may be meant, where --dataset says so."""
    if not was or not now or list(was) == list(now):
        return
    changed = next((old, new) for old, new in zip(was, now, strict=True) if old != new)
    text = f"the file was made for other classes: {changed[0]}, here {changed[1]}"
    if not asked_for:
        raise UserError(text, "give --data DIR of the data set it was made for", BAD_CHECKPOINT)
    print(f"warning: {text}", file=sys.stderr)


def _check_held_out(val: int, transforms: list[dict[str, Any]]) -> None:
    """--val judges on pictures that no stage before has seen. Those of a smaller --val are among those of a larger one."""
    trained = [t.get("val", 0) for t in transforms if "epochs" in t or t["stage"] == "original"]
    least = min(trained, default=val)
    if val > least:
        remedy = f"take --val {least}" if least else "leave --val out"
        raise UserError(
            f"--val {val}: the file was trained on pictures that this holds out",
            f"{remedy}, or give --val {val} to every stage from the first training on",
        )
