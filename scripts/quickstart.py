"""python -m scripts.quickstart: the whole chain on the embedded digits, ending in a table and a picture."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from engine import flags, run
from engine.errors import UserError

EXAMPLES = ("scripts.quickstart", "scripts.quickstart --precision fp32")

NIN = "96,80,48,96,96,96,96,96"
NIN_GC = "128,128,128,256,256,256,512,512"
DIGITS = "--dataset digits"

STEPS = (
    ("float network, half width", f"prune.train {DIGITS} --cfg {NIN} --epochs 6"),
    ("sparse training: BN scales are pushed towards 0", f"prune.train {DIGITS} --cfg {NIN} -sr --s 0.0001 --epochs 6"),
    ("half of the channels go", "prune.normal_regular --percent 0.5"),
    ("refining what is left", "prune.train --refine --epochs 5"),
    ("8 bit weights and activations", "quant.wqaq --Wbits 8 --Abits 8 --refine --epochs 3"),
    ("4 bit weights and activations", "quant.wqaq --Wbits 4 --Abits 4 --refine --epochs 5"),
    ("grouped convolutions, sparse", f"prune.train --arch nin_gc {DIGITS} --cfg {NIN_GC} -sr --s 0.001 --epochs 6"),
    ("grouped pruning: groups and shuffles stay", "prune.gc --percent 0.4"),
    ("refining the grouped network", "prune.train --refine models_save/nin_gc_prune.pth --epochs 5"),
)  # fmt: skip

FILES = (
    "nin", "nin_preprune", "nin_prune", "nin_refine", "nin_w8a8", "nin_w4a4",
    "nin_gc_preprune", "nin_gc_prune", "nin_gc_refine",
)  # fmt: skip


def parser() -> flags.Parser:
    p = flags.Parser("scripts.quickstart", (__doc__ or "").partition(": ")[2], EXAMPLES)
    p.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of float training")
    p.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    for number, (what, line) in enumerate(STEPS, 1):
        if line.startswith("prune.train"):
            line += f" --precision {args.precision}"
        print(f"\n[{number}/{len(STEPS) + 1}] {what}\n$ python -m {line}", flush=True)
        _call(line)
    files = " ".join(f"models_save/{name}.pth" for name in FILES)
    print(f"\n[{len(STEPS) + 1}/{len(STEPS) + 1}] the table", flush=True)
    _call(f"scripts.report {files} --save runs/quickstart/report.md")
    return {"text": f"\ndone in {time.monotonic() - started:.0f} s; every command above can be run alone"}


def _call(line: str) -> None:
    """Run one command of the chain in this process, as a shell would in one of its own."""
    module, *argv = shlex.split(line)
    code = importlib.import_module(module).main(argv)
    if code:
        raise UserError(f"python -m {line} ended with exit code {code}", "see its error above", code)


def main(argv: Sequence[str] | None = None) -> int:
    return run.command(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
