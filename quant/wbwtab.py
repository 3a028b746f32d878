"""python -m quant.wbwtab: train with binary or ternary weights and activations (TWN, BNN, XNOR-Net)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import command, flags
from engine.errors import UserError
from quant import qat
from quant.spec import QuantSpec, quantizer

EXAMPLES = (
    "quant.wbwtab --W 2 --A 2",
    "quant.wbwtab --W 3 --A 2 --no-scale --refine models_save/nin_refine.pth",
    "quant.wbwtab --W 3 --A 32 --gap",
)

KINDS: dict[int, int | str] = {2: "b", 3: "t", 32: 32}


def parser() -> flags.Parser:
    p = flags.Parser("quant.wbwtab", (__doc__ or "").partition(": ")[2], EXAMPLES)
    group = p.add_argument_group("quantization")
    for flag, what in (("--W", "weights"), ("--A", "activations")):
        group.add_argument(flag, type=flags.number(int, 0), choices=sorted(KINDS), default=2,
                           help=f"{what}: 2 binary, 3 ternary, 32 float; quant.wqaq has the widths between (default: 2)")  # fmt: skip
    group.add_argument("--scale", action=argparse.BooleanOptionalAction,
                       help="weights with a scaling factor a filter; without: for hardware that cannot multiply (default: with)")  # fmt: skip
    group.add_argument("--ste", choices=["ste", "saturate", "soft"],
                       help="gradient through activation codes: 1, cut outside [-1, 1], or max(0, 1-|x|) (default: saturate)")  # fmt: skip
    group.add_argument("--wste", choices=["ste", "saturate"],
                       help="gradient through weight codes (default: ste; latent weights are clipped to [-1, 1] anyway)")  # fmt: skip
    group.add_argument(
        "--gap", action="store_true", help="ternary weights just below a threshold keep their value: no flicker"
    )
    group.add_argument("--bn_momentum", type=flags.number(float, 0, 1, open_low=True), metavar="X",
                       help="of batch norm statistics (default: torch's 0.1)")  # fmt: skip
    group.add_argument("--order", choices=["bacp", "cbap"],
                       help="where there is a pool: bacp conv-pool-bn-sign, cbap conv-bn-pool-sign (default: bacp)")  # fmt: skip
    qat.add_common(p, quantized=QuantSpec(quantizer("b"), quantizer("b")))
    return p


def body(args: argparse.Namespace) -> dict[str, Any]:
    _check(args)
    weight = {} if args.W == 32 else {"scale": args.scale is not False, "ste": args.wste or "ste", "gap": args.gap}
    activation = {} if args.A == 32 else {"ste": args.ste or "saturate"}
    spec = QuantSpec(
        quantizer(KINDS[args.W], **weight),
        quantizer(KINDS[args.A], **activation),
        order=args.order or ("bacp" if args.A == 2 else "cbap"),
        bn_momentum=args.bn_momentum,
    )
    return qat.body(args, spec)


def _check(args: argparse.Namespace) -> None:
    """Refuse a trick that these bits have no use for: two runs that differ in it alone would be one."""
    if args.gap and args.W != 3:
        raise UserError(f"--gap is for ternary weights, not --W {args.W}", "add --W 3, or leave --gap out")
    for flag, what, used in (
        ("scale", f"coded weights, not --W {args.W}", args.W != 32),
        ("wste", f"coded weights, not --W {args.W}", args.W != 32),
        ("ste", f"coded activations, not --A {args.A}", args.A != 32),
        ("order", f"binary activations, not --A {args.A}", args.A == 2),
    ):
        if getattr(args, flag) is not None and not used:
            raise UserError(f"--{flag} is for {what}", f"leave --{flag} out")


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
