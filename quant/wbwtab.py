"""python -m quant.wbwtab: train with binary or ternary weights and activations (TWN, BNN, XNOR-Net)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.cli import command
from engine.cli.flags import Parser, part
from engine.cli.options import Training, recipe_help
from quant import recipes, settings
from quant.options import Quantizing, Settings
from quant.quantizer_spec import QuantizerSpec, for_inputs, quantizer
from quant.settings import VALUES
from quant.spec import QuantSpec

EXAMPLES = (
    "quant.wbwtab --W 2 --A 2",
    "quant.wbwtab --W 3 --A 2 --no-scale --refine models_save/nin_refine.pth",
    "quant.wbwtab --W 3 --A 32 --gap",
)

OWN = tuple(settings.flags_of("wbwtab", QuantizerSpec, QuantSpec))


@dataclass(frozen=True, kw_only=True)
class Codes(Settings):
    """The widths of the codes and the settings of their training."""

    flags = OWN

    def spec(self) -> QuantSpec:
        """Return the spec that the flags ask for, not yet resolved for a network.

        Raises:
            UserError: exit 2 for a flag without effect on these codes.
        """
        values = self.values
        weight, activation = quantizer(VALUES[values["W"]]), for_inputs(VALUES[values["A"]])
        settings.refuse_idle(
            values, OWN, weight=(weight.kind, f"--W {values['W']}"), activation=(activation.kind, f"--A {values['A']}")
        )
        whole = {"order": activation.traits.order, **settings.given(values, OWN, "")}
        return QuantSpec(
            replace(weight, **settings.given(values, OWN, "weight")),
            replace(activation, **settings.given(values, OWN, "activation")),
            **whole,
        )


@dataclass(frozen=True, kw_only=True)
class Options(Quantizing):
    """The flags of quant.wbwtab."""

    settings: Codes = part(Codes)
    training: Training = part(Training, **recipe_help(recipes.families("wbwtab")))


def parser() -> Parser:
    return Parser("quant.wbwtab", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    spec = options.settings.spec()
    from quant.qat import train

    return train(options, spec)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
