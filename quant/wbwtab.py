"""python -m quant.wbwtab: train with binary or ternary weights and activations (TWN, BNN, XNOR-Net)."""

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
from quant.spec import QuantSpec, quantizer

EXAMPLES = (
    "quant.wbwtab --W 2 --A 2",
    "quant.wbwtab --W 3 --A 2 --no-scale --refine models_save/nin_refine.pth",
    "quant.wbwtab --W 3 --A 32 --gap",
)

KINDS: dict[int, int | str] = {2: "b", 3: "t", 32: 32}


@dataclass(frozen=True, kw_only=True)
class Options(Quantizing):
    """Which codes, and the tricks of their training; None leaves a trick at its default."""

    weights: int = flag(
        "--W", type=argtypes.number(int, 0), choices=sorted(KINDS), default=2,
        help="weights: 2 binary, 3 ternary, 32 float; quant.wqaq has the widths between (default: 2)",
    )  # fmt: skip
    activations: int = flag(
        "--A", type=argtypes.number(int, 0), choices=sorted(KINDS), default=2,
        help="activations: 2 binary, 3 ternary, 32 float; quant.wqaq has the widths between (default: 2)",
    )  # fmt: skip
    scale: bool | None = flag(
        "--scale", action=argparse.BooleanOptionalAction,
        help="weights with a scaling factor a filter; without: for hardware that cannot multiply (default: with)",
    )  # fmt: skip
    ste: str | None = flag(
        "--ste", choices=["ste", "saturate", "soft"],
        help="gradient through activation codes: 1, cut outside [-1, 1], or max(0, 1-|x|) (default: saturate)",
    )  # fmt: skip
    wste: str | None = flag(
        "--wste", choices=["ste", "saturate"],
        help="gradient through weight codes (default: ste; latent weights are clipped to [-1, 1] anyway)",
    )  # fmt: skip
    gap: bool = flag(
        "--gap", action="store_true", help="ternary weights just below a threshold keep their value: no flicker"
    )
    bn_momentum: float | None = flag(
        "--bn_momentum", type=argtypes.number(float, 0, 1, open_low=True), metavar="X",
        help="of batch norm statistics (default: torch's 0.1)",
    )  # fmt: skip
    order: str | None = flag(
        "--order", choices=["bacp", "cbap"],
        help="where there is a pool: bacp conv-pool-bn-sign, cbap conv-bn-pool-sign (default: bacp)",
    )  # fmt: skip
    training: Training = part(Training, **helped(quantized=QuantSpec(quantizer("b"), quantizer("b"))))

    def __post_init__(self) -> None:
        """Refuse a trick that these bits have no use for: two runs that differ in it alone would be one."""
        super().__post_init__()
        weights, activations = self.weights, self.activations
        if self.gap and weights != 3:
            raise UserError(f"--gap is for ternary weights, not --W {weights}", "add --W 3, or leave --gap out")
        for name, value, what, used in (
            ("scale", self.scale, f"coded weights, not --W {weights}", weights != 32),
            ("wste", self.wste, f"coded weights, not --W {weights}", weights != 32),
            ("ste", self.ste, f"coded activations, not --A {activations}", activations != 32),
            ("order", self.order, f"binary activations, not --A {activations}", activations == 2),
        ):
            if value is not None and not used:
                raise UserError(f"--{name} is for {what}", f"leave --{name} out")

    def spec(self) -> QuantSpec:
        """What the flags say, without a network."""
        weight = {"scale": self.scale is not False, "ste": self.wste or "ste", "gap": self.gap}
        return QuantSpec(
            quantizer(KINDS[self.weights], **({} if self.weights == 32 else weight)),
            quantizer(KINDS[self.activations], **({} if self.activations == 32 else {"ste": self.ste or "saturate"})),
            order=self.order or ("bacp" if self.activations == 2 else "cbap"),
            bn_momentum=self.bn_momentum,
        )


def parser() -> Parser:
    return Parser("quant.wbwtab", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from quant.qat import train

    return train(options, options.spec())


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
