"""The one table of quantizers: what is known of each, and its registration. Needs no torch until one is used.

A quantizer is a file of this folder that holds its formula, its modules, `TRAITS = Traits(...)`, keywords with plain
values, and one call of `register`. --help and the checks of flags must not wait for torch, so they read `TRAITS` without
running the file.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from models.layers.quantizers.base import Quantizer


@dataclass(frozen=True)
class Traits:
    """What a quantizer says of itself in plain values.

    Args:
        name: in specs, files and after --quantizer.
        bits: the widths that it has. One with several is what --quantizer chooses from.
        words: for --help.
        short_name: how flags and file names write its width; empty: the number.
        prefix: of file names, before w4a4; None: the name and `_`.
        family: those that share a recipe; empty: the name.
        mixes: whether a layer's other quantizer may be of another kind (that mixes, too).
        settings: the fields of QuantizerSpec and QuantSpec that mean something to it.
        input_ste: the default estimator of its activations.
        order: the default order of pool and batch norm where it codes activations.
        ends: what its first and last layer are spared: "float", they stay float; "picture", the picture alone is not
            quantized; "bits", they have `end_bits`, one of `bits`.
        fixed_range: whether its activations suit what a batch norm gives, so that other inputs are measured (affine).
        follows_sign: whether its activations are signed where no ReLU stands before.
        bn_momentum: of every BN in refining.
        optimizer, lr, refining_lr, weight_decay: of its recipe.
    """

    name: str
    bits: tuple[int, ...]
    words: str = ""
    short_name: str = ""
    prefix: str | None = None
    family: str = ""
    mixes: bool = False
    settings: tuple[str, ...] = ()
    input_ste: str = "ste"
    order: str = "cbap"
    ends: Literal["picture", "bits", "float"] = "float"
    end_bits: int | None = None
    fixed_range: bool = False
    follows_sign: bool = False
    bn_momentum: float | None = None
    optimizer: str = "sgd"
    lr: float = 0.05
    refining_lr: float = 0.02
    weight_decay: float = 5e-4


class Spec(Protocol):
    """What is asked of one quantizer; what each field means: quant.spec.QuantizerSpec."""

    @property
    def bits(self) -> int: ...

    @property
    def scale(self) -> bool: ...

    @property
    def ste(self) -> str: ...

    @property
    def gap(self) -> bool: ...

    @property
    def symmetric(self) -> bool: ...

    @property
    def per_channel(self) -> bool: ...


class WholeSpec(Protocol):
    """What of a network's spec a file's name may say; quant.spec.QuantSpec has it."""

    @property
    def weight(self) -> Spec: ...

    @property
    def activation(self) -> Spec: ...

    @property
    def bn_fold(self) -> bool: ...

    @property
    def sums(self) -> str: ...


@dataclass(frozen=True)
class Kind:
    """A quantizer of the table.

    Args:
        weight: of a spec and the layer's weight, the module for it.
        activation: of a spec and whether the input may be negative, the module for a layer's input.
        codes: of its bits, all codes that a weight can have as they are stored; None: real numbers.
        possible: of codes, int (out, n), and a spec, whether a weight can have them; None: each is one of `codes`.
        file_name: of a whole spec, how file names write it; None: prefix and widths, lsq_w4a4.
        original: of bn_fold and arch, what differs from the original's recipe for float networks.
    """

    traits: Traits
    weight: Callable[[Spec, Tensor], Quantizer]
    activation: Callable[[Spec, bool], Quantizer]
    codes: Callable[[int], Collection[int]] | None
    possible: Callable[[Tensor, Spec], bool] | None = None
    file_name: Callable[[WholeSpec], str] | None = None
    original: Callable[[bool, str], dict[str, Any]] | None = None

    def gives(self, codes: Tensor, spec: Spec) -> bool:
        """Whether a weight quantized by `spec` can have these stored codes, int (out, ...)."""
        codes = codes.flatten(1).int()
        if self.possible:
            return self.possible(codes, spec)
        return self.codes is not None and set(codes.unique().tolist()) <= set(self.codes(spec.bits))


TABLE: dict[str, Kind] = {}
"""The quantizers that have been loaded: read it by `lookup`."""


def register(kind: Kind) -> None:
    """Enter a quantizer into the table.

    Raises:
        ValueError: for a name or short name that is taken, no width, a width of the ends that is none of its own, or
            more codes than a width can hold.
    """
    traits, known = kind.traits, all_traits()
    if traits.name in TABLE or known.get(traits.name, traits) != traits:
        raise ValueError(f"a quantizer {traits.name!r} is registered already")
    if any(
        traits.short_name and other.short_name == traits.short_name
        for name, other in known.items()
        if name != traits.name
    ):
        raise ValueError(f"{traits.name}: the short name {traits.short_name!r} is taken")
    if not traits.bits or (kind.codes and not all(1 <= bits <= 8 for bits in traits.bits)):
        raise ValueError(f"{traits.name}: bits are numbers from 1 to 8, not {traits.bits}")
    if traits.end_bits not in (traits.bits if traits.ends == "bits" else (None,)):
        raise ValueError(
            f"{traits.name}: end_bits {traits.end_bits} do not go with ends {traits.ends!r}, widths {traits.bits}"
        )
    for bits in traits.bits if kind.codes else ():
        count = len(set((kind.codes or range)(bits)))
        if not 0 < count <= 2**bits:
            raise ValueError(f"{traits.name}: {count} codes do not fit {bits} bit")
    TABLE[traits.name] = kind


def all_traits() -> dict[str, Traits]:
    """What is known of every quantizer, by name: those of this folder, and those registered from elsewhere."""
    return {**{name: traits for name, (traits, _) in _own().items()}, **{n: kind.traits for n, kind in TABLE.items()}}


def traits(name: str) -> Traits:
    """What is known of a quantizer.

    Raises:
        ValueError: for a name that none has; its message names the nearest, or all.
    """
    known = all_traits()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ValueError(
            f"unknown quantizer {name!r}: " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}")
        )
    return known[name]


def lookup(name: str) -> Kind:
    """A quantizer by its name; its file is loaded if need be, and torch with it.

    Raises:
        ValueError: for a name that none has.
    """
    if name not in TABLE:
        traits(name)
        import_module(f"{__package__}.{_own()[name][1]}")
    return TABLE[name]


@cache
def _own() -> dict[str, tuple[Traits, str]]:
    """`TRAITS` of every file of this folder, with the file's name; read, not run."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TRAITS":
                assert isinstance(node.value, ast.Call)
                values = {str(word.arg): ast.literal_eval(word.value) for word in node.value.keywords}
                found[values["name"]] = Traits(**values), path.stem
    return found
