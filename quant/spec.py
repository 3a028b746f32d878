"""Which bits go where, as data: frozen, printable, and stored in every quantized checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from engine.errors import BAD_CHECKPOINT, UserError

KINDS = ("float", "dorefa", "binary", "ternary")
STE = ("ste", "saturate", "soft")


@dataclass(frozen=True)
class QuantizerSpec:
    """One quantizer.

    Args:
        kind: "float" (32 bits, identity), "dorefa" (2 to 8 bits), "binary" or "ternary".
        bits: of a code; fixed by the kind except for dorefa.
        scale: binary and ternary weights: with a scale for each filter.
        ste: pseudo-gradient of binary and ternary codes.
        gap: ternary weights: hold the value just below a threshold.

    Raises:
        ValueError: for a combination that makes no sense.
    """

    kind: str = "float"
    bits: int = 32
    scale: bool = True
    ste: str = "ste"
    gap: bool = False

    def __post_init__(self) -> None:
        allowed = {"float": (32,), "dorefa": range(2, 9), "binary": (1,), "ternary": (2,)}
        if self.kind not in allowed:
            raise ValueError(f"unknown quantizer {self.kind!r}: one of {', '.join(KINDS)}")
        if self.bits not in allowed[self.kind]:
            raise ValueError(f"{self.kind} has no {self.bits} bit form")
        if self.ste not in STE:
            raise ValueError(f"unknown straight-through estimator {self.ste!r}: one of {', '.join(STE)}")
        if self.gap and self.kind != "ternary":
            raise ValueError("a gap needs ternary weights")

    @property
    def letter(self) -> str:
        """How file names write it: 8, 4, 32, b, t."""
        return {"binary": "b", "ternary": "t"}.get(self.kind, str(self.bits))


def quantizer(bits: int | str, **options: Any) -> QuantizerSpec:
    """The quantizer of a flag's value: 2 to 8 is DoReFa, 32 float, `t` ternary, `b` binary."""
    if bits in ("t", "b"):
        kind, width = ("ternary", 2) if bits == "t" else ("binary", 1)
        return QuantizerSpec(kind, width, **options)
    return QuantizerSpec("float") if bits == 32 else QuantizerSpec("dorefa", int(bits))


@dataclass(frozen=True)
class QuantSpec:
    """How a whole network is quantized.

    Args:
        weight, activation: of every convolution and linear layer but the exceptions.
        exceptions: names of layers that stay float.
        order: "cbap" (conv, bn, activation codes after the pool) or "bacp" (conv, pool, bn, codes).
        bn_momentum: of every BN while training; None leaves torch's 0.1.
    """

    weight: QuantizerSpec = QuantizerSpec()
    activation: QuantizerSpec = QuantizerSpec()
    exceptions: tuple[str, ...] = ()
    order: str = "cbap"
    bn_momentum: float | None = None

    @property
    def name(self) -> str:
        return f"w{self.weight.letter}a{self.activation.letter}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "exceptions": list(self.exceptions)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QuantSpec:
        """Read what to_dict wrote.

        Raises:
            UserError: exit 3 for fields or values that this program does not know.
        """
        try:
            parts = {k: QuantizerSpec(**values[k]) for k in ("weight", "activation")}
            known = {f.name for f in fields(cls)}
            rest = {k: v for k, v in values.items() if k in known and k not in parts}
            spec = cls(**parts, **{**rest, "exceptions": tuple(rest.get("exceptions", ()))})
        except (TypeError, KeyError, ValueError, AttributeError) as fault:
            raise UserError(f"the file's quantization cannot be understood: {fault}", "make it again", BAD_CHECKPOINT) from fault
        return spec

    def keeping(self, names: tuple[str, ...]) -> QuantSpec:
        """A copy in which these layers stay float."""
        return replace(self, exceptions=(*self.exceptions, *names))
