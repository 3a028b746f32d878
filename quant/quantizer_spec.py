"""The settings of one quantizer. Each field is declared with the flags that set it.

The quantizers are in models/layers/quantizers/; spec.py has the settings of a whole network.
"""

from __future__ import annotations

from argparse import BooleanOptionalAction as YesNo
from dataclasses import dataclass, fields, replace
from typing import Any

from engine.cli.argtypes import number
from models.layers.quantizers import kinds
from quant.settings import Flag, as_it_is, flagged, offered, width, widths_in_words

STE = ("ste", "saturate", "soft")
DEFAULT = "dorefa"
"""The quantizer for a number of bits given without a quantizer's name."""

_WIDTHS = f"{widths_in_words()} (default: 8)"
_THREE = "2 binary, 3 ternary, 32 float; quant.wqaq has the widths between (default: 2)"


def _width_flag(command: str, word: str, part: str, **options: Any) -> Flag:
    """Declare a flag that sets the bits, and by them the quantizer, of weights or activations."""
    return Flag(word, (command,), options, part, part, None, "short_name")


@dataclass(frozen=True)
class QuantizerSpec:
    """The settings of one quantizer.

    Args:
        kind: its name in the table of quantizers; "float" is the identity with 32 bits.
        bits: width of a code, one of the kind's widths.
        scale: binary and ternary weights: whether each filter has a scale.
        ste: straight-through estimator of binary and ternary codes.
        gap: ternary weights: keep the values just below a threshold.
        symmetric: affine: whether the grid is symmetric about 0.
        per_channel: affine weights: whether each filter has its own grid.

    Raises:
        ValueError: for settings that contradict each other, or a value of another type.
    """

    kind: str = flagged(
        "float",
        Flag("--quantizer", ("wqaq",), {"metavar": "NAME", "help": f"{offered()} (default: {DEFAULT}, or the quantizer "
             "of the other flags given)"}),
    )  # fmt: skip
    bits: int = flagged(
        32,
        _width_flag("wqaq", "--Wbits", "weight", type=width, default=8, metavar="K",
                help=f"bits of weights: {_WIDTHS}"),
        _width_flag("wqaq", "--Abits", "activation", type=width, default=8, metavar="K",
                help=f"bits of activations: {_WIDTHS}"),
        _width_flag("wbwtab", "--W", "weight", type=number(int, 0), choices=[2, 3, 32], default=2,
                help=f"weights: {_THREE}"),
        _width_flag("wbwtab", "--A", "activation", type=number(int, 0), choices=[2, 3, 32], default=2,
                help=f"activations: {_THREE}"),
    )  # fmt: skip
    scale: bool = flagged(
        True,
        Flag("--scale", ("wbwtab",), {"action": YesNo, "help": "one scale for each filter of weights; --no-scale is "
             "for hardware that cannot multiply (default: --scale)"}, reads=as_it_is),
    )  # fmt: skip
    ste: str = flagged(
        "ste",
        Flag("--ste", ("wbwtab",), {"choices": STE, "help": "gradient through activation codes: 1, cut outside "
             "[-1, 1], or max(0, 1-|x|) (default: saturate)"}, "activation", "activation", as_it_is),
        Flag("--wste", ("wbwtab",), {"choices": STE[:2], "help": "gradient through weight codes (default: ste; latent "
             "weights are always clipped to [-1, 1])"}, reads=as_it_is),
    )  # fmt: skip
    gap: bool = flagged(
        False,
        Flag("--gap", ("wbwtab",), {"action": "store_true", "default": None, "help": "let ternary weights just below a "
             "threshold keep their value, so that they do not flicker"}, reads=as_it_is),
    )  # fmt: skip
    symmetric: bool = flagged(
        False,
        Flag("--q_type", ("wqaq", "ptq"), {"type": number(int, 0), "choices": [0, 1], "help": "affine: 0 symmetric, "
             "1 asymmetric (default: 1)"}, reads=lambda value: value == 0),
    )  # fmt: skip
    per_channel: bool = flagged(
        True,
        Flag("--per_channel", ("wqaq", "ptq"), {"action": YesNo, "default": None, "help": "affine: one weight grid for "
             "each filter (default), or one for the whole layer"}, reads=as_it_is),
    )  # fmt: skip

    def __post_init__(self) -> None:
        for each in fields(self):
            if type(getattr(self, each.name)) is not type(each.default):
                raise ValueError(f"{each.name} of a quantizer has the wrong type: {getattr(self, each.name)!r}")
        traits = self.traits
        if self.bits not in traits.bits:
            raise ValueError(f"{self.kind} codes cannot have {self.bits} bits")
        if self.ste not in STE:
            raise ValueError(f"unknown straight-through estimator {self.ste!r}, not one of {', '.join(STE)}")
        if self.gap and "gap" not in traits.settings:
            raise ValueError(f"{self.kind} codes have no setting gap")

    @property
    def traits(self) -> kinds.Traits:
        """The traits of its kind."""
        return kinds.traits(self.kind)

    @property
    def short_name(self) -> str:
        """Its width as file names write it: 8, 4, 32, b, t."""
        return self.traits.short_name or str(self.bits)


FLOAT = QuantizerSpec()
"""Numbers as they are."""


def quantizer(bits: int | str, **options: Any) -> QuantizerSpec:
    """Return the quantizer for a flag's value: DoReFa for 2 to 8, float for 32, ternary for `t`, binary for `b`."""
    for traits in kinds.all_traits().values():
        if traits.short_name and traits.short_name == bits:
            return QuantizerSpec(traits.name, traits.bits[0], **options)
    return FLOAT if bits == 32 else QuantizerSpec(DEFAULT, int(bits))


def for_inputs(bits: int | str, **options: Any) -> QuantizerSpec:
    """Return the same for activations, with the kind's default straight-through estimator."""
    return replace(quantizer(bits), **{"ste": quantizer(bits).traits.input_ste, **options})
