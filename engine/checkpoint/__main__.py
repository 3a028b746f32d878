"""python -m engine.checkpoint inspect F: what a file is, where it comes from, and whether it can be believed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import argtypes, command, flags

EXAMPLES = (
    "engine.checkpoint inspect models_save/nin_w4a4.pth",
    "engine.checkpoint inspect models_save/nin_refine.pth --json",
)


def parser() -> flags.Parser:
    p = flags.Parser("engine.checkpoint", (__doc__ or "").partition(": ")[2], EXAMPLES)
    p.add_argument("what", choices=["inspect"], help="read everything and say what it is; nothing is built or run")
    p.add_argument(
        "file", type=argtypes.path, metavar="F", help="a checkpoint, of this toolkit or of the original's kind"
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    p.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    from engine.checkpoint import format as checkpoint
    from engine.system import files

    content = checkpoint.load(args.file)
    state = content["state_dict"]
    found: dict[str, Any] = {
        "file": str(args.file),
        "bytes": args.file.stat().st_size,
        "sha256": files.sha256(args.file),
        "format": content.get("format"),
        "format_version": content.get("format_version"),
        "checksums": checkpoint.has_checksums(args.file),
        "tensors": len(state),
        "numbers": sum(tensor.numel() for tensor in state.values()),
        "finite": True,  # checkpoint.load refuses anything else
    }
    if found["format"]:
        found |= {key: content[key] for key in (*checkpoint.schema.FIELDS, "best_acc")}
        found["stages"] = [in_words(stage) for stage in content["transforms"]]
    return {"text": "\n".join(_lines(found)), **found}


def in_words(stage: dict[str, Any]) -> str:
    """One stage of a file: `quantize: weights dorefa 4 bit, activations dorefa 4 bit, exceptions block1.conv, epochs 3`."""
    words = []
    for key, value in stage.items():
        if key == "spec":
            parts = {"weights": value.get("weight"), "activations": value.get("activation")}
            words += [
                f"{name} {part.get('kind')} {part.get('bits')} bit"
                for name, part in parts.items()
                if isinstance(part, dict)
            ]
            rest = {k: v for k, v in value.items() if k not in ("weight", "activation")}
            words += [f"{k} {_flat(v)}" for k, v in rest.items() if v not in (None, False, [])]
        elif key != "stage":
            words.append(f"{key} {_flat(value)}")
    return f"{stage['stage']}: {', '.join(words)}" if words else stage["stage"]


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"file        {found['file']}, {found['bytes']:,} bytes",
        f"sha256      {found['sha256']}",
        f"checksums   {'all match: no damage since it was written' if found['checksums'] else 'none: damage could not be noticed'}",
        f"tensors     {found['tensors']:,}, with {found['numbers']:,} numbers, all finite",
    ]
    if not found["format"]:
        return [*lines, "format      not of this toolkit: a state_dict, bare or wrapped, as the original writes it"]
    data, made, metrics = found["dataset"], found["provenance"], found["metrics"]
    versions = made.get("versions") or {}
    parent = f"{made['parent']}, sha256 {made['parent_sha256']}" if made["parent"] else "none"
    return [
        *lines,
        f"format      {found['format']} {found['format_version']}",
        f"network     {found['arch']}, cfg {_flat(found['cfg'])}",
        f"arguments   {_flat(found['arch_args'])}",
        *(f"{'stages' if not n else '':<11} {n + 1}. {text}" for n, text in enumerate(found["stages"])),
        f"data set    {data['label']} ({data['name']}): {data['classes']} classes{_names(data)}, {data['image_size']} x "
        f"{data['image_size']}, mean {_flat(data['mean'])}, std {_flat(data['std'])}",
        f"accuracy    {found['best_acc']:.2f} %, judged on {metrics.get('judged_on', 'unknown')}, "
        f"{metrics.get('pictures', 'unknown')} pictures",
        f"made by     {made['command']}",
        f"            seed {made.get('seed')}; {_flat(versions)}",
        f"parent      {parent}",
    ]


def _names(data: dict[str, Any]) -> str:
    names = data.get("names") or []
    return f" ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})" if names else ""


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(_flat, value))
    return str(value)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
