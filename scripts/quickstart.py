"""python -m scripts.quickstart: run the whole chain on the embedded digits, up to a table and a small packed file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.cli import command
from engine.cli.flags import Parser, flag, part
from engine.cli.machine import Debugging
from engine.cli.naming import called
from engine.cli.options import Command
from engine.numerics import precision
from engine.system.messages import notice
from engine.system.packages import install
from scripts import chain
from scripts.ladder.steps import STEPS as LADDER

EXAMPLES = ("scripts.quickstart", "scripts.quickstart --precision fp32")

NIN = "--dataset digits --cfg 96,80,48,96,96,96,96,96"  # half of NIN's widths
NIN_GC = "--dataset digits --arch nin_gc --cfg 128,128,128,256,256,256,512,512"


def _refine(step: str, epochs: int) -> str:
    """Return a ladder step that starts from the file of the stage before."""
    return f"{LADDER[step].command} --refine --epochs {epochs}"


STEPS = (
    ("a float network, half width", f"prune.train {NIN} --epochs 6", "nin"),
    ("sparse training: BN scales are pushed towards 0", f"prune.train {NIN} -sr --s 0.003 --epochs 6", "nin_preprune"),
    ("pruning: half of all channels, those with the smallest BN scales", LADDER["prune50"].command, "nin_prune"),
    ("refining: training the pruned network", _refine("prune50_refine", 5), "nin_refine"),
    ("8-bit weights and activations (DoReFa)", _refine("w8a8", 3), "nin_w8a8"),
    ("4-bit weights and activations", _refine("w4a4", 4), "nin_w4a4"),
    ("ternary weights", _refine("wta32", 4), "nin_wta32"),
    ("binary weights, binary activations", _refine("wbab", 8), "nin_wbab"),
    ("batch norm folded into binary weights", "bn_merge --W 2", "nin_wbab_merged"),
    ("INT8, batch norm folded in training", _refine("int8_q1_fold1", 3), "nin_int8_q1_fold1"),
    ("INT8 without training", LADDER["ptq_kl"].command, "nin_ptq_kl"),
    ("grouped convolutions, sparse", f"prune.train {NIN_GC} -sr --s 0.001 --epochs 6", "nin_gc_preprune"),
    ("grouped pruning: groups and shuffles stay", LADDER["gc_prune40"].command, "nin_gc_prune"),
    ("refining the grouped network", "prune.train --arch nin_gc --refine --epochs 5", "nin_gc_refine"),
)
"""The title of each step, its command, and the name of its file in models_save/."""
BINARY = "nin_wbab_merged"


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The precision and the machine."""

    precision: str = flag("--precision", choices=precision.CHOICES, default="auto", help=precision.HELP)
    machine: Debugging = part(Debugging)


def parser() -> Parser:
    return Parser("scripts.quickstart", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    started, count = time.monotonic(), len(STEPS) + 3
    place = Path("runs/quickstart")
    print(f"$ cd {place}      # a separate folder: your models_save/ stays untouched", flush=True)
    with chain.inside(place):
        _chain(options, count)
    text = f"\ndone in {time.monotonic() - started:.0f} s; every command above can also be run alone"
    if has_page():
        text += f"\nthe table, the plots and the commands as a web page: {place / 'report.html'}"
    else:
        notice(f"no web page without bokeh: {install('report')}")
    return {"text": text, "path": place / "report.md"}


def _chain(options: Options, count: int) -> None:
    for number, (what, line, _) in enumerate(STEPS, 1):
        if line.startswith(("prune.train", "quant.wqaq", "quant.wbwtab")):
            line += f" --precision {options.precision}"
        print(f"\n[{number}/{count}] {what}\n$ {called(line)}", flush=True)
        chain.call(line)
    files = " ".join(f"models_save/{name}.pth" for *_, name in STEPS)
    print(f"\n[{count - 2}/{count}] the table", flush=True)
    chain.call(f"scripts.report {files} --save report.md --measure{' --html' if has_page() else ''}")
    for number, (what, line) in enumerate(_packed(), count - 1):
        print(f"\n[{number}/{count}] {what}\n$ {called(line)}", flush=True)
        chain.call(line)


def has_page() -> bool:
    """Return whether Bokeh, which draws the web page, is installed."""
    return find_spec("bokeh") is not None


def _packed() -> tuple[tuple[str, str], ...]:
    """Write a few test digits to picture files and return the steps that pack the binary network and run it on them."""
    from engine.data.digits import write_some

    pictures = " ".join(map(str, write_some(Path("digits"), 5)))
    file = f"models_save/{BINARY}"
    return (
        ("packing the binary network into a small file", f"deploy.pack --model {file}.pth"),
        (
            f"running the packed file{_judged()} on five digits",
            f"deploy.run --model {file}.safetensors {pictures} --top 1",
        ),
    )


def _judged() -> str:
    """Return the packed network's accuracy in words, from the report; "" without a report."""
    report = Path("report.json")
    rows = json.loads(report.read_text(encoding="utf-8")) if report.exists() else []
    found = [row["accuracy"] for row in rows if Path(row["file"]).stem == BINARY]
    return f", right on {found[0]:.2f} % of the test digits," if found else ""


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
