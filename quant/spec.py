"""Which bits go where, as data: frozen, printable, and stored in every quantized checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.errors import BAD_CHECKPOINT, UserError

KINDS = ("float", "dorefa", "binary", "ternary", "affine")
STE = ("ste", "saturate", "soft")


@dataclass(frozen=True)
class QuantizerSpec:
    """One quantizer.

    Args:
        kind: "float" (32 bits, identity), "dorefa" (2 to 8 bits), "binary", "ternary" or "affine" (2 to 8).
        bits: of a code; fixed by the kind except for dorefa and affine.
        scale: binary and ternary weights: with a scale for each filter.
        ste: pseudo-gradient of binary and ternary codes.
        gap: ternary weights: hold the value just below a threshold.
        symmetric, per_channel: affine: a grid about 0; for weights, one grid a filter.

    Raises:
        ValueError: for a combination that makes no sense.
    """

    kind: str = "float"
    bits: int = 32
    scale: bool = True
    ste: str = "ste"
    gap: bool = False
    symmetric: bool = False
    per_channel: bool = True

    def __post_init__(self) -> None:
        allowed = {"float": (32,), "dorefa": range(2, 9), "binary": (1,), "ternary": (2,), "affine": range(2, 9)}
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
        float_inputs: names of layers whose weights alone are quantized.
        measured_inputs: names of layers whose inputs are coded over a measured range (affine), with the activation's
            bits: DoReFa's range is fixed and suits what a BN gives, and between a depthwise pair there is none.
        bn_fold: fold each batch norm into its convolution while training (affine weights).
        order: "cbap" (conv, bn, activation codes after the pool) or "bacp" (conv, pool, bn, codes).
        bn_momentum: of every BN while training; None leaves torch's 0.1.

    Raises:
        ValueError: for another order, a momentum outside (0, 1], or measured inputs without DoReFa activations.
    """

    weight: QuantizerSpec = QuantizerSpec()
    activation: QuantizerSpec = QuantizerSpec()
    exceptions: tuple[str, ...] = ()
    order: str = "cbap"
    bn_momentum: float | None = None
    float_inputs: tuple[str, ...] = ()
    bn_fold: bool = False
    measured_inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.order not in ("cbap", "bacp"):
            raise ValueError(f"unknown order {self.order!r}: cbap or bacp")
        if self.bn_momentum is not None and (
            type(self.bn_momentum) not in (int, float) or not 0 < self.bn_momentum <= 1
        ):
            raise ValueError(f"bn_momentum {self.bn_momentum} is not in (0, 1]")
        if self.measured_inputs and self.activation.kind != "dorefa":
            raise ValueError(f"measured inputs are for DoReFa activations, not {self.activation.kind} ones")

    @property
    def name(self) -> str:
        """How file names write it: w8a8, wbab, int8_q1_fold0."""
        if self.weight.kind == "affine":
            w, a = self.weight.bits, self.activation.bits
            bits = f"int{w}" if w == a else f"intw{w}a{a}"
            whole = "" if self.weight.per_channel else "_tensor"  # one grid for all filters
            return f"{bits}_q{int(not self.weight.symmetric)}_fold{int(self.bn_fold)}{whole}"
        return f"w{self.weight.letter}a{self.activation.letter}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and JSON."""
        lists = {k: list(getattr(self, k)) for k in _LISTS}
        return {**asdict(self), **lists}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QuantSpec:
        """Read what to_dict wrote.

        Raises:
            UserError: exit 3 for fields or values that this program does not know.
        """
        try:
            parts: dict[str, Any] = {k: QuantizerSpec(**values[k]) for k in ("weight", "activation")}
            rest = {k: v for k, v in values.items() if k not in parts}
            plain = {k: type(v) for k, v in asdict(QuantizerSpec()).items()}
            if any(type(v) is not plain[k] for part in parts.values() for k, v in asdict(part).items()):
                raise ValueError("a setting of a quantizer is of another kind")
            if type(rest.get("bn_fold", False)) is not bool:
                raise ValueError("bn_fold is neither true nor false")
            if not all(isinstance(v := rest.get(k, []), list) and all(isinstance(n, str) for n in v) for k in _LISTS):
                raise ValueError(f"{' and '.join(_LISTS)} are lists of names")
            lists = {k: tuple(rest.get(k, ())) for k in _LISTS}
            spec = cls(**parts, **{**rest, **lists})
        except (TypeError, KeyError, ValueError, AttributeError) as fault:
            raise UserError(
                f"the file's quantization cannot be understood: {fault}", "make it again", BAD_CHECKPOINT
            ) from fault
        return spec

    def at_ends(self, first: str, last: str, sums: Iterable[str] = ()) -> QuantSpec:
        """A copy that spares a network's two ends as its family does: affine spares the picture alone.

        Args:
            sums: names of layers that read the plain sums of a convolution; see quant.prepare.reads_sums.
        """
        if self.weight.kind == "affine" or self.activation.kind == "affine":
            return replace(self, float_inputs=(*self.float_inputs, first))
        found = replace(self, exceptions=(*self.exceptions, first, last))
        return (
            replace(found, measured_inputs=(*self.measured_inputs, *sums))
            if self.activation.kind == "dorefa"
            else found
        )


_LISTS = ("exceptions", "float_inputs", "measured_inputs")


def affine(w_bits: int, a_bits: int, q_type: int, bn_fold: bool, per_channel: bool = True) -> QuantSpec:
    """INT8 and its narrower kin (arXiv 1712.05877).

    Args:
        q_type: 0 symmetric, 1 asymmetric.
    """

    def part(bits: int) -> QuantizerSpec:
        if bits == 32:
            return QuantizerSpec()
        return QuantizerSpec("affine", bits, symmetric=q_type == 0, per_channel=per_channel)

    return QuantSpec(part(w_bits), part(a_bits), bn_momentum=0.01, bn_fold=bn_fold)
