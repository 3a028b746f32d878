"""The settings of a quantized network: frozen, printable data, stored in every quantized checkpoint.

Each field is declared with the flags that set it. quantizer_spec.py has the settings of one quantizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.cli.argtypes import number
from engine.errors import BAD_CHECKPOINT, UserError
from models.layers.quantizers import kinds
from models.layers.quantizers.guard import called
from quant.quantizer_spec import FLOAT, QuantizerSpec
from quant.settings import Flag, as_it_is, flagged

FAR = 1e4
"""Limit of means and stds of pixels, of which bytes are still exact in fp32."""
_LISTS = ("exceptions", "float_inputs", "measured_inputs", "coded_ends")


@dataclass(frozen=True)
class QuantSpec:
    """The quantization of a whole network.

    Args:
        weight, activation: quantizers of every convolution and linear layer except the exceptions.
        exceptions: names of layers that stay float.
        float_inputs: names of layers with quantized weights and float inputs.
        measured_inputs: names of layers whose inputs are quantized over a measured range (affine), with the bits of
            activations. DoReFa's fixed range suits the output of a BN, and inside a depthwise pair there is no BN.
        bn_fold: fold each batch norm into its convolution while training (affine weights).
        order: "cbap" (conv, bn, activation codes after the pool) or "bacp" (conv, pool, bn, codes).
        bn_momentum: of every BN while training; None keeps torch's 0.1.
        by_graph: in files of the user's networks: whether the graph decides which ReLUs are removed. For older files,
            see declared.py.
        sums: "float", or "int8" (affine activations) to quantize the inputs of sums and concatenations; see quant.sums.
        ends: "float", or "int8" to give first and last layers that would stay float 8-bit weights, as deploy.pack does,
            and to let the first layers read the picture's bytes.
        coded_ends: names of these layers.
        pixels: mean and std of the picture's channels, for layers that read its bytes.

    Raises:
        ValueError: for an unknown order, a momentum outside (0, 1], measured inputs with activations without a fixed
            range, int8 sums with activations that are not affine, int8 ends where the quantizers keep none in float, or a
            value of another type.
    """

    weight: QuantizerSpec = FLOAT
    activation: QuantizerSpec = FLOAT
    exceptions: tuple[str, ...] = flagged(
        (),
        Flag("--keep_float", ("wqaq", "wbwtab", "ptq"), {"action": "append", "metavar": "PATTERN", "help": "keep this "
             "layer in float, a name or a pattern like block8.*; may be given several times"}, "", field="kept"),
    )  # fmt: skip
    order: str = flagged(
        "cbap",
        Flag("--order", ("wbwtab",), {"choices": ["bacp", "cbap"], "help": "order of blocks with a pool: bacp is "
             "conv-pool-bn-sign, cbap is conv-bn-pool-sign (default: bacp)"}, "", "activation", as_it_is),
    )  # fmt: skip
    bn_momentum: float | None = flagged(
        None,
        Flag("--bn_momentum", ("wbwtab",), {"type": number(float, 0, 1, open_low=True), "metavar": "X",
             "help": "momentum of batch norm statistics (default: torch's 0.1)"}, "", reads=as_it_is),
    )  # fmt: skip
    float_inputs: tuple[str, ...] = ()
    bn_fold: bool = flagged(
        False,
        Flag("--bn_fold", ("wqaq",), {"type": number(int, 0), "choices": [0, 1], "help": "affine: 1 folds batch norms "
             "during training (default: 0)"}, "", "weight", bool),
    )  # fmt: skip
    measured_inputs: tuple[str, ...] = ()
    by_graph: bool = False
    sums: str = flagged(
        "float",
        Flag("--sums", ("wqaq", "ptq"), {"choices": ["float", "int8"], "help": "affine: int8 also quantizes the inputs "
             "of sums and concatenations, so that engines keep 8 bits between layers (default: float)"},
             "", "activation", as_it_is),
    )  # fmt: skip

    ends: str = flagged(
        "float",
        Flag("--ends", ("wqaq", "wbwtab", "ptq"), {"choices": ["float", "int8"], "help": "int8: the first layer reads "
             "the picture's bytes, and ends that would stay float get the 8 bits that deploy.pack stores "
             "(default: float)"}, "", "activation", as_it_is),
    )  # fmt: skip
    coded_ends: tuple[str, ...] = ()
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    def __post_init__(self) -> None:
        self._check_types()
        self._check_values()
        self._check_pixels()

    def _check_types(self) -> None:
        if not all(isinstance(part, QuantizerSpec) for part in (self.weight, self.activation)):
            raise ValueError("weight and activation must be quantizers")
        for names in (getattr(self, k) for k in _LISTS):
            if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{', '.join(_LISTS)} must be lists of names")
        for name in ("bn_fold", "by_graph"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false")

    def _check_values(self) -> None:
        if self.order not in ("cbap", "bacp"):
            raise ValueError(f"unknown order {self.order!r}, not cbap or bacp")
        if self.bn_momentum is not None and (
            type(self.bn_momentum) not in (int, float) or not 0 < self.bn_momentum <= 1
        ):
            raise ValueError(f"bn_momentum {self.bn_momentum} is not in (0, 1]")
        if self.measured_inputs and not self.activation.traits.fixed_range:
            raise ValueError(f"measured inputs need activations with a fixed range, not {self.activation.kind}")
        if self.sums not in ("float", "int8"):
            raise ValueError(f"unknown sums {self.sums!r}, not float or int8")
        if self.sums == "int8" and "sums" not in self.activation.traits.settings:
            raise ValueError(f"int8 sums need affine activations, not {self.activation.kind}")
        if self.ends not in ("float", "int8"):
            raise ValueError(f"unknown ends {self.ends!r}, not float or int8")
        if self.ends == "int8" and not all(
            "ends" in part.settings for part in (self.activation.traits, *self.all_traits)
        ):
            raise ValueError(f"int8 ends are not for {self.weight.kind} weights and {self.activation.kind} activations")
        if self.ends == "float" and self.coded_ends:
            raise ValueError("float ends have no codes")

    def _check_pixels(self) -> None:
        if not isinstance(self.pixels, tuple) or not all(isinstance(part, tuple) for part in self.pixels):
            raise ValueError("pixels must be the mean and the std of each channel")
        if {type(number) for part in self.pixels for number in part} - {int, float}:
            raise ValueError("pixels must be numbers")
        if len(self.pixels) != 2 or len(self.pixels[0]) != len(self.pixels[1]):
            raise ValueError("pixels must be as many means as stds")
        if not all(abs(m) <= FAR for m in self.pixels[0]) or not all(1 / FAR <= s <= FAR for s in self.pixels[1]):
            raise ValueError(f"pixels must have means up to {FAR:g}, and stds from {1 / FAR:g} to {FAR:g}")

    @property
    def all_traits(self) -> list[kinds.Traits]:
        """The traits of the weight and the activation quantizer, without float ones unless both are float."""
        parts = [part.traits for part in (self.weight, self.activation) if part.bits < 32]
        return parts or [self.weight.traits]

    @property
    def least_sparing(self) -> kinds.Traits:
        """The traits that decide about the first and last layers: those that keep the least of them in float."""
        order = ("picture", "bits", "float")
        return min(self.all_traits, key=lambda traits: (order.index(traits.ends), traits.end_bits or 0))

    @property
    def kept(self) -> frozenset[str]:
        """Names of the layers that stay float."""
        return frozenset(self.exceptions)

    @property
    def name(self) -> str:
        """The spec as file names write it: w8a8, wbab, int8_q1_fold0."""
        traits = self.all_traits[0]
        if own := kinds.lookup(traits.name).file_name:
            return called(own, self)
        prefix = f"{traits.name}_" if traits.prefix is None else traits.prefix
        ends = "_ends" if self.ends == "int8" else ""
        return f"{prefix}w{self.weight.short_name}a{self.activation.short_name}{ends}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for checkpoints and JSON."""
        lists = {k: list(getattr(self, k)) for k in _LISTS}
        values = {**asdict(self), **lists}
        if not self.by_graph:  # older versions refuse unknown fields
            del values["by_graph"]
        if self.sums == "float":
            del values["sums"]
        if self.ends == "float":
            for name in ("ends", "coded_ends", "pixels"):
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QuantSpec:
        """Rebuild a spec from the values of to_dict.

        Raises:
            UserError: exit 3 for unknown fields or values.
        """
        try:
            parts = {k: QuantizerSpec(**values[k]) for k in ("weight", "activation")}
            lists = {k: tuple(v) if isinstance(v := values[k], list) else v for k in _LISTS if k in values}
            if "pixels" in values:
                lists["pixels"] = tuple(tuple(part) for part in values["pixels"])
            return cls(**{**values, **parts, **lists})
        except (TypeError, KeyError, ValueError, AttributeError) as fault:
            raise UserError(
                f"the file's quantization cannot be understood: {fault}", "make the file again", BAD_CHECKPOINT
            ) from fault

    def at_ends(self, first: Iterable[str], last: Iterable[str], sums: Iterable[str] = ()) -> QuantSpec:
        """Return a copy with the kind's exceptions for the first and last layers: affine leaves only the picture float.

        Args:
            first, last: names of the layers that read the picture, and of the layers that give the answer.
            sums: names of layers that read a convolution's sums without a norm; see quant.placement.reads_sums.
        """
        if self.least_sparing.ends == "picture":
            coded = tuple(first) if self.ends == "int8" else ()
            return replace(self, float_inputs=(*self.float_inputs, *first), coded_ends=coded)
        ends = tuple(dict.fromkeys((*first, *last))) if self.least_sparing.ends == "float" else ()
        measured = self.measured_inputs
        if self.activation.traits.fixed_range:
            measured = tuple(dict.fromkeys((*measured, *(name for name in sums if name not in ends))))
        if self.ends == "int8":
            return replace(self, coded_ends=ends, measured_inputs=measured)
        return replace(self, exceptions=tuple(dict.fromkeys((*self.exceptions, *ends))), measured_inputs=measured)


def uniform(kind: str, w_bits: int, a_bits: int, settings: dict[str, Any] | None = None, **fields: Any) -> QuantSpec:
    """Return a spec with one kind for weights and activations. 32 bits of either mean float.

    Args:
        settings: fields of both quantizers.
        fields: fields of the QuantSpec.
    """

    def part(bits: int) -> QuantizerSpec:
        return FLOAT if bits == 32 else QuantizerSpec(kind, bits, **(settings or {}))

    traits = kinds.traits(kind)
    return QuantSpec(part(w_bits), part(a_bits), **{"bn_momentum": traits.bn_momentum, "order": traits.order, **fields})


def affine_spec(w_bits: int, a_bits: int, q_type: int, bn_fold: bool, per_channel: bool = True) -> QuantSpec:
    """Return a spec of affine quantization, INT8 or narrower (arXiv 1712.05877).

    Args:
        q_type: 0 symmetric, 1 asymmetric.
    """
    settings = {"symmetric": q_type == 0, "per_channel": per_channel}
    return uniform("affine", w_bits, a_bits, settings, bn_fold=bn_fold)
