"""python -m quant.wqaq: train with weights and activations of few bits (DoReFa, or affine as in INT8), any W with any A."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.options import Training
from engine.errors import UserError
from quant.options import Quantizing, helped
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


@dataclass(frozen=True, kw_only=True)
class Options(Quantizing):
    """Which quantizer, and how many bits; None leaves a setting at its default."""

    w_bits: int | str = flag(
        "--Wbits", type=bits, default=8, metavar="K",
        help=f"of weights: {', '.join(map(str, BITS))}, t ternary, b binary (default: 8)",
    )  # fmt: skip
    a_bits: int | str = flag(
        "--Abits", type=bits, default=8, metavar="K",
        help=f"of activations: {', '.join(map(str, BITS))}, t ternary, b binary (default: 8)",
    )  # fmt: skip
    method: str | None = flag(
        "--quantizer", choices=["dorefa", "affine"],
        help="affine: INT8 and its kin, every layer (default: dorefa, or affine where --q_type or --bn_fold is given)",
    )  # fmt: skip
    q_type: int | None = flag(
        "--q_type", type=argtypes.number(int, 0), choices=[0, 1],
        help="affine: 0 symmetric, 1 asymmetric (default: 1)",
    )  # fmt: skip
    bn_fold: int | None = flag(
        "--bn_fold", type=argtypes.number(int, 0), choices=[0, 1],
        help="affine: 1 folds batch norms while training (default: 0)",
    )  # fmt: skip
    per_channel: bool | None = flag(
        "--per_channel", action=argparse.BooleanOptionalAction,
        help="affine: a weight grid for each filter (default), or one for all",
    )  # fmt: skip
    training: Training = part(Training, **helped(
        DoReFa=QuantSpec(quantizer(8), quantizer(8)), affine=affine(8, 8, 1, False),
        **{"t or b": QuantSpec(quantizer("t"), quantizer("b"))},
    ))  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "dorefa" and self._affine_flags:
            raise UserError(f"{self._affine_flags[0]} is for --quantizer affine, not dorefa", "give one of them")
        if self._affine and ({self.w_bits, self.a_bits} & {"t", "b"} or self.w_bits == 32):
            raise UserError(
                "affine quantization has weights of 2 to 8 bits and activations of 2 to 8 or 32",
                "leave --q_type, --bn_fold and --per_channel out for other widths",
            )

    @property
    def _affine_flags(self) -> list[str]:
        """Those that imply affine quantization."""
        given = {"--q_type": self.q_type, "--bn_fold": self.bn_fold, "--per_channel": self.per_channel}
        return [name for name, value in given.items() if value is not None]

    @property
    def _affine(self) -> bool:
        return self.method == "affine" or bool(self._affine_flags)

    def spec(self) -> QuantSpec:
        """What the flags say, without a network."""
        if self._affine:
            q_type, per_channel = 1 if self.q_type is None else self.q_type, self.per_channel is not False
            return affine(int(self.w_bits), int(self.a_bits), q_type, bool(self.bn_fold), per_channel)
        activation = quantizer(self.a_bits, **({"ste": "saturate"} if self.a_bits in ("t", "b") else {}))
        order = "bacp" if self.a_bits == "b" else "cbap"  # as quant.wbwtab has them
        return QuantSpec(quantizer(self.w_bits), activation, order=order)


def parser() -> Parser:
    return Parser("quant.wqaq", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from quant.qat import train

    return train(options, options.spec())


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
