"""python -m quant.wqaq: train with weights and activations of few bits, any W with any A."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.cli import command
from engine.cli.argtypes import nearest
from engine.cli.flags import Parser, part
from engine.cli.options import Training, recipe_help
from engine.errors import UserError
from models.layers.quantizers.kinds import Traits, all_traits
from quant import recipes, settings
from quant.options import Quantizing, Settings
from quant.quantizer_spec import DEFAULT, QuantizerSpec, for_inputs, quantizer
from quant.spec import QuantSpec, uniform

EXAMPLES = (
    "quant.wqaq --Wbits 8 --Abits 8",
    "quant.wqaq --Wbits 4 --Abits 4 --refine models_save/nin_refine.pth",
    "quant.wqaq --Wbits 8 --Abits 8 --arch nin_gc --refine",
    "quant.wqaq --Wbits t --Abits 4",
    "quant.wqaq --q_type 1 --bn_fold 1 --refine",
)

OWN = tuple(settings.flags_of("wqaq", QuantizerSpec, QuantSpec))


@dataclass(frozen=True, kw_only=True)
class Bits(Settings):
    """The quantizer, its bits and its settings."""

    flags = OWN

    def spec(self) -> QuantSpec:
        """Return the spec that the flags ask for, not yet resolved for a network.

        Raises:
            UserError: exit 2 for flags or bits that the quantizer does not have.
        """
        values = self.values
        kind, weights, activations = self._chosen(), values["Wbits"], values["Abits"]
        if kind.mixes:  # weights and activations may have different quantizers, if both mix
            weight, activation = quantizer(weights), for_inputs(activations)
            self._refuse_idle(weight.kind, activation.kind)
            whole = settings.given(values, OWN, "")
            return QuantSpec(weight, activation, **{"order": activation.traits.order, **whole})
        if weights not in kind.bits or activations not in (*kind.bits, 32):
            span = f"{kind.bits[0]} to {kind.bits[-1]}"
            used = [flag.word for flag in OWN if flag.field in kind.settings] or ["--quantizer"]
            raise UserError(
                f"{kind.name} quantization needs weights of {span} bits and activations of {span} or 32 bits",
                f"leave {', '.join(used)} out for other widths",
            )
        self._refuse_idle(kind.name, "float" if activations == 32 else kind.name)
        both, whole = (settings.given(values, OWN, part) for part in ("weight", ""))
        return uniform(kind.name, weights, activations, both, **whole)

    def _refuse_idle(self, weight: str, activation: str) -> None:
        """Refuse flags without effect on these quantizers, with exit 2."""
        widths = (f"--Wbits {self.values['Wbits']}", f"--Abits {self.values['Abits']}")
        settings.refuse_idle(self.values, OWN, weight=(weight, widths[0]), activation=(activation, widths[1]))

    def _chosen(self) -> Traits:
        """Return the quantizer of --quantizer, else the one that has the other flags, else the default.

        Raises:
            UserError: exit 2 for an unknown quantizer, or flags of different ones.
        """
        name = self.values["quantizer"]
        several = {traits.name: traits for traits in all_traits().values() if len(traits.bits) > 1}
        wanted = [flag for flag in OWN if self.values[flag.name] is not None and settings.users(flag)]
        if name is not None and name not in several:
            hint = nearest(name, list(several)) or f"one of {', '.join(several)}"
            raise UserError(f"unknown quantizer {name!r}", hint)
        using = [name for name, traits in several.items() if all(flag.field in traits.settings for flag in wanted)]
        if wanted and not using:
            words = " and ".join(flag.typed(self.values) for flag in wanted)
            raise UserError(f"{words} are for different quantizers", "give one of them")
        if name is None:
            return several[DEFAULT if DEFAULT in using else using[0]]
        if name not in using:
            owners = " or ".join(user.name for user in settings.users(wanted[0]) if user.name in several)
            word = wanted[0].typed(self.values)
            raise UserError(
                f"{word} is for --quantizer {owners}, not {name}", f"leave {word} or --quantizer {name} out"
            )
        return several[name]


@dataclass(frozen=True, kw_only=True)
class Options(Quantizing):
    """The flags of quant.wqaq."""

    settings: Bits = part(Bits)
    training: Training = part(Training, **recipe_help(recipes.families("wqaq")))


def parser() -> Parser:
    return Parser("quant.wqaq", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    spec = options.settings.spec()
    from quant.qat import train

    return train(options, spec)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
