"""python -m engine.checkpoint inspect F: show what a file holds, where it comes from and whether it is intact."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checkpoint.words import flat
from engine.cli import argtypes, command
from engine.cli.datasets import SHIFT
from engine.cli.flags import Parser, flag
from engine.cli.options import Command
from engine.tasks import score as scores
from engine.tasks.score import Score

if TYPE_CHECKING:
    from engine.checkpoint.format import Checkpoint, Metrics

EXAMPLES = (
    "engine.checkpoint inspect models_save/nin_w4a4.pth",
    "engine.checkpoint inspect models_save/nin_refine.pth --json",
)


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The file to inspect."""

    what: str = flag("what", choices=["inspect"], help="read and describe the whole file; no network is built or run")
    file: Path = flag(
        "file", type=argtypes.path, metavar="F", help="a checkpoint of this toolkit, or of the original repository"
    )


def parser() -> Parser:
    return Parser("engine.checkpoint", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.checkpoint.format import Checkpoint, load

    checkpoint = load(options.file)
    found: dict[str, Any] = {
        "file": str(options.file),
        "bytes": options.file.stat().st_size,
        "sha256": checkpoint.sha256,
        "format": None,
        "format_version": None,
        "checksums": checkpoint.checksums,
        "tensors": len(checkpoint.state_dict),
        "numbers": sum(tensor.numel() for tensor in checkpoint.state_dict.values()),
        "finite": True,  # load refuses a file with other numbers
    }
    if not isinstance(checkpoint, Checkpoint):
        plain = "format      not this toolkit's: a state_dict, bare or wrapped, as the original repository writes it"
        return {"text": "\n".join([*_lines(found), plain]), **found}
    described = checkpoint.to_dict()
    del described["state_dict"]
    stages = [": ".join(filter(None, (stage.name, stage.settings_words()))) for stage in checkpoint.history]
    found |= {**described, "stages": stages}
    return {"text": "\n".join([*_lines(found), *_described(checkpoint, stages)]), **found}


def _lines(found: dict[str, Any]) -> list[str]:
    whole = "all match: the file is as it was written" if found["checksums"] else "none: damage would go unnoticed"
    return [
        f"file        {found['file']}, {found['bytes']:,} bytes",
        f"sha256      {found['sha256']}",
        f"checksums   {whole}",
        f"tensors     {found['tensors']:,}, with {found['numbers']:,} numbers, all finite",
    ]


def _described(checkpoint: Checkpoint, stages: list[str]) -> list[str]:
    data, made, metrics = checkpoint.dataset, checkpoint.provenance, checkpoint.metrics
    score = scores.of(data.task)
    parent = f"{made.parent}, sha256 {made.parent_sha256}" if made.parent else "none"
    names = f" ({', '.join(data.names[:10])}{', ...' if len(data.names) > 10 else ''})" if data.names else ""
    label = data.label if data.label == data.name else f"{data.label} ({data.name})"
    return [
        f"format      {checkpoint.format} {checkpoint.to_dict()['format_version']}",
        f"network     {checkpoint.arch}" + (f", cfg {flat(checkpoint.cfg)}" if checkpoint.cfg else ""),
        f"arguments   {flat(checkpoint.arch_args)}",
        *(f"{'stages' if not n else '':<11} {n + 1}. {text}" for n, text in enumerate(stages)),
        f"data set    {label}: {data.classes} classes{names}, {data.image_size} x "
        f"{data.image_size}, mean {flat(data.mean)}, std {flat(data.std)}{'' if data.crop == SHIFT else f', --crop {data.crop}'}",
        f"{score.name:<11} {_judged(metrics, score)}",
        f"made by     {made.command}",
        f"            seed {made.seed}; {flat(made.versions)}",
        f"parent      {parent}",
    ]


def _judged(metrics: Metrics, score: Score) -> str:
    """Word the score. An old file may not say what it was measured on, and may store 0 for an unknown accuracy."""
    if metrics.judged_on == "unknown":
        told = f"{score.shown(metrics.accuracy)}, on unknown pictures"
        return told if metrics.judged else "unknown: it was not evaluated here"
    pictures = "unknown" if metrics.pictures is None else metrics.pictures
    return f"{score.shown(metrics.accuracy)}, evaluated on {metrics.judged_on}, {pictures} pictures"


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
