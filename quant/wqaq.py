"""python -m quant.wqaq: train with weights and activations of few bits (DoReFa, or affine as in INT8), any W with any A."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import command, flags
from engine.errors import UserError
from quant import qat
from quant.spec import QuantSpec, affine, quantizer

EXAMPLES = (
    "quant.wqaq --Wbits 8 --Abits 8",
    "quant.wqaq --Wbits 4 --Abits 4 --refine models_save/nin_refine.pth",
    "quant.wqaq --Wbits 8 --Abits 8 --arch nin_gc --refine",
    "quant.wqaq --Wbits t --Abits 4",
    "quant.wqaq --q_type 1 --bn_fold 1 --refine",
)

BITS = (2, 3, 4, 5, 6, 7, 8, 32)


def bits(text: str) -> int | str:
    """An argparse type: a bit width of the list, `t` for ternary or `b` for binary."""
    if text in ("t", "b"):
        return text
    if not text.isdecimal() or int(text) not in BITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a bit width\none of {', '.join(map(str, BITS))}, t, b")
    return int(text)


def parser() -> flags.Parser:
    p = flags.Parser("quant.wqaq", (__doc__ or "").partition(": ")[2], EXAMPLES)
    group = p.add_argument_group("quantization")
    for flag, what in (("--Wbits", "weights"), ("--Abits", "activations")):
        group.add_argument(flag, type=bits, default=8, metavar="K",
                           help=f"of {what}: {', '.join(map(str, BITS))}, t ternary, b binary (default: 8)")  # fmt: skip
    group.add_argument("--quantizer", choices=["dorefa", "affine"],
                       help="affine: INT8 and its kin, every layer (default: dorefa, or affine where --q_type or --bn_fold is given)")  # fmt: skip
    group.add_argument("--q_type", type=flags.number(int, 0), choices=[0, 1],
                       help="affine: 0 symmetric, 1 asymmetric (default: 1)")  # fmt: skip
    group.add_argument("--bn_fold", type=flags.number(int, 0), choices=[0, 1],
                       help="affine: 1 folds batch norms while training (default: 0)")  # fmt: skip
    group.add_argument("--per_channel", action=argparse.BooleanOptionalAction, default=None,
                       help="affine: a weight grid for each filter (default), or one for all")  # fmt: skip
    qat.add_common(p, DoReFa=QuantSpec(quantizer(8), quantizer(8)), affine=affine(8, 8, 1, False),
                     **{"t or b": QuantSpec(quantizer("t"), quantizer("b"))})  # fmt: skip
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    given = [f"--{name}" for name in ("q_type", "bn_fold", "per_channel") if getattr(args, name) is not None]
    if args.quantizer == "dorefa" and given:
        raise UserError(f"{given[0]} is for --quantizer affine, not dorefa", "give one of them")
    if args.quantizer != "affine" and not given:
        activation = quantizer(args.Abits, **({"ste": "saturate"} if args.Abits in ("t", "b") else {}))
        order = "bacp" if args.Abits == "b" else "cbap"  # as quant.wbwtab has them
        return qat.body(args, QuantSpec(quantizer(args.Wbits), activation, order=order))
    if {args.Wbits, args.Abits} & {"t", "b"} or args.Wbits == 32:
        raise UserError(
            "affine quantization has weights of 2 to 8 bits and activations of 2 to 8 or 32",
            "leave --q_type, --bn_fold and --per_channel out for other widths",
        )
    q_type = 1 if args.q_type is None else args.q_type
    return qat.body(args, affine(args.Wbits, args.Abits, q_type, bool(args.bn_fold), args.per_channel is not False))


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
