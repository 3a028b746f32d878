"""Every quantizer with every width, for tests of their common promises; and functions to read their results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from models.layers.quantizers.affine import AffineActivation, affine_weight
from models.layers.quantizers.base import Quantized, Quantizer
from models.layers.quantizers.binary import BinaryActivation, binary_weight
from models.layers.quantizers.dorefa import DorefaActivation, dorefa_weight
from models.layers.quantizers.ternary import TernaryActivation, ternary_weight


class Case(NamedTuple):
    """A weight quantizer; `levels` counts per filter if `own` (each filter has its own grid), else per tensor."""

    quantize: Callable[[Tensor], Quantized]
    levels: int
    own: bool = True


BITS = range(2, 9)
CASES: dict[str, Case] = {
    **{f"dorefa {k}": Case(partial(dorefa_weight, bits=k), 2**k, False) for k in BITS},
    "ternary": Case(ternary_weight, 3),
    "ternary without scale": Case(partial(ternary_weight, scale=False), 3),
    "binary": Case(binary_weight, 2),
    "binary without scale": Case(partial(binary_weight, scale=False), 2),
}
for _k in BITS:
    for _each in (True, False):
        _name = f"affine {_k} {'per channel' if _each else 'per tensor'}"
        CASES[f"{_name} symmetric"] = Case(
            partial(affine_weight, bits=_k, symmetric=True, per_channel=_each), 2**_k - 1, _each
        )
        CASES[f"{_name} asymmetric"] = Case(
            partial(affine_weight, bits=_k, symmetric=False, per_channel=_each), 2**_k, _each
        )


def named(*words: str) -> list[str]:
    """Return the cases whose names contain all of these words."""
    return [name for name in CASES if set(words) <= set(name.split())]


def value(found: Quantized) -> Tensor:
    return found.codes if found.scale is None else found.codes * found.scale


ACTIVATIONS: dict[str, Callable[[], Quantizer]] = {
    **{f"dorefa {k}": partial(DorefaActivation, k) for k in BITS},
    **{f"affine {k} {word}": partial(AffineActivation, k, word == "symmetric")
       for k in BITS for word in ("symmetric", "asymmetric")},
    **{f"{word} {kind}": partial(make, kind) for kind in ("ste", "saturate", "soft")
       for word, make in (("binary", BinaryActivation), ("ternary", TernaryActivation))},
}  # fmt: skip
