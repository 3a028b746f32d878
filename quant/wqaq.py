"""python -m quant.wqaq: train with weights and activations of few bits (DoReFa), any W with any A."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from engine import flags, run
from quant import stage

EXAMPLES = (
    "quant.wqaq --Wbits 8 --Abits 8",
    "quant.wqaq --Wbits 4 --Abits 4 --refine models_save/nin_refine.pth",
    "quant.wqaq --Wbits 8 --Abits 8 --arch nin_gc --refine",
    "quant.wqaq --Wbits t --Abits 4",
)


def parser() -> flags.Parser:
    p = flags.Parser("quant.wqaq", (__doc__ or "").partition(": ")[2], EXAMPLES)
    group = p.add_argument_group("quantization")
    for flag, what in (("--Wbits", "weights"), ("--Abits", "activations")):
        group.add_argument(flag, type=flags.bits, default=8, metavar="K",
                           help=f"of {what}: {', '.join(map(str, flags.BITS))}, t ternary, b binary (default: 8)")  # fmt: skip
    stage.add_common(p)
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    from quant.spec import QuantSpec, quantizer

    return stage.body(args, QuantSpec(quantizer(args.Wbits), quantizer(args.Abits)))


def main(argv: Sequence[str] | None = None) -> int:
    return run.command(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
