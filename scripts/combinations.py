"""python -m scripts.combinations: train, merge and compare every W with every A on the digits, in one table."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.machine import Debugging
from engine.cli.options import Command
from scripts import chain
from scripts.ladder.steps import STEPS, Step

EXAMPLES = ("scripts.combinations", "scripts.combinations --epochs 2 --save runs/combinations.md")

KINDS = ("32", "8", "4", "2", "t", "b")
CFG = {
    "nin": "48,40,24,48,48,48,48,48",  # a quarter of its own widths
    "nin_gc": "64,64,64,128,128,128,256,256",
}
FAMILIES = (
    ("dorefa 8", "w8a8"),
    ("dorefa 4", "w4a4"),
    ("dorefa 2", "w2a2"),
    ("ternary W", "wta32"),
    ("ternary W, binary A", "wtab"),
    ("ternary W no scale, binary A", "wtab_no_scale"),
    ("binary W", "wba32"),
    ("binary W, binary A", "wbab"),
    *((f"INT8 q{q} fold{f}", f"int8_q{q}_fold{f}") for q, f in itertools.product((0, 1), repeat=2)),
    *((f"PTQ {m}", f"ptq_{m}") for m in ("minmax", "percentile", "mse", "kl")),
)
"""The label of each row, and the ladder step with its command."""


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The length of training and the output file."""

    epochs: int = flag(
        "--epochs", type=argtypes.number(int, 1, 1000), default=2, metavar="N", help="epochs of a stage (default: 2)"
    )
    save: Path = flag(
        "--save", type=argtypes.markdown, default=Path("runs/combinations.md"), metavar="F.md",
        help="file for the table (default: runs/combinations.md)",
    )  # fmt: skip
    machine: Debugging = part(Debugging)


def parser() -> Parser:
    return Parser("scripts.combinations", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.system.files import OTHER_SAVE, check_writable, write_text

    check_writable(options.save, OTHER_SAVE)
    with chain.inside(Path("runs/combinations")):  # a folder of its own, so that your models_save/ stays untouched
        lines = _lines(options.epochs)
    write_text(options.save, "\n".join(lines) + "\n", OTHER_SAVE)
    return {"text": "\n".join(lines), "path": options.save}


def _lines(epochs: int) -> list[str]:
    """Train, merge and compare every network, and return the lines of the table."""
    lines = [
        "| network | W x A or family | accuracy | merged | same answer | largest logit difference |",
        "|---|---|---|---|---|---|",
    ]
    for w, a in itertools.product(KINDS, repeat=2):
        made = chain.result(
            f"quant.wqaq --Wbits {w} --Abits {a} --dataset digits --cfg {CFG['nin']} --epochs {epochs} --seed 1"
        )
        lines.append(_merged(f"nin 1/4 width | w{w}a{a}", made))
        print(lines[-1], file=sys.stderr, flush=True)
    for arch, cfg in CFG.items():
        chain.result(f"prune.train --arch {arch} -sr --dataset digits --cfg {cfg} --epochs {3 * epochs}")
        chain.result("prune.normal_regular --percent 0.5" if arch == "nin" else "prune.gc --percent 0.4")
        refined = chain.result(f"prune.train --arch {arch} --refine --epochs {2 * epochs}")
        whole = chain.result(f"prune.train --arch {arch} --dataset digits --cfg {cfg} --epochs {3 * epochs}")
        for label, base in ((f"{arch} 1/4 width, pruned, refined", refined), (f"{arch} 1/4 width", whole)):
            lines.append(_merged(f"{label} | float", base))
            for name, step in FAMILIES:
                line = _line(STEPS[step], epochs, base["path"])
                lines.append(_merged(f"{label} | {name}", chain.result(line)))
                print(lines[-1], file=sys.stderr, flush=True)
    return lines


def _line(step: Step, epochs: int, path: str) -> str:
    """Return the command of a step that reads a file."""
    length = f" --epochs {epochs}" if step.trains else ""
    return f"{step.command}{length} {step.reads} {path}"


def _merged(label: str, made: dict[str, Any]) -> str:
    merged = chain.result(f"bn_merge --model {made['path']}")
    found = chain.result(f"bn_merge.compare {merged['path']}")
    return (
        f"| {label} | {made['accuracy']:.2f} % | {found['accuracy']:.2f} % | "
        f"{found['agree']} of {found['pictures']} | {found['largest_logit_difference']:.1e} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
