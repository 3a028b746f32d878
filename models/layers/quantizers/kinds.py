"""The table of quantizers: their traits and registration. torch is imported only when a quantizer is used.

A quantizer is a file in this folder with its formula, its modules, `TRAITS = Traits(...)` (see traits.py) and one call
of `register`. --help and the checks of flags must not import torch, so they read `TRAITS` without running the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from models.layers.quantizers.guard import called, guarded, misdeclared
from models.layers.quantizers.traits import Traits, declared

if TYPE_CHECKING:
    from torch import Tensor

    from models.layers.quantizers.base import Quantizer


class Spec(Protocol):
    """The settings of one quantizer; quant.quantizer_spec.QuantizerSpec describes the fields."""

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
    """The part of quant.spec.QuantSpec that a file name may contain."""

    @property
    def weight(self) -> Spec: ...

    @property
    def activation(self) -> Spec: ...

    @property
    def bn_fold(self) -> bool: ...

    @property
    def sums(self) -> str: ...

    @property
    def ends(self) -> str: ...


@dataclass(frozen=True)
class Kind:
    """A quantizer in the table.

    Args:
        weight: returns the module for a spec and the layer's weight.
        activation: returns the module for a layer's input, given a spec and whether the input may be negative.
        codes: returns all codes that a stored weight of these bits can have; None: real numbers.
        possible: returns whether a weight can have codes, int (out, n), by a spec; None: each must be one of `codes`.
        file_name: returns a whole spec as in file names; None: prefix and widths, lsq_w4a4.
        original: returns what differs from the original repository's float recipe, given bn_fold and arch.
    """

    traits: Traits
    weight: Callable[[Spec, Tensor], Quantizer]
    activation: Callable[[Spec, bool], Quantizer]
    codes: Callable[[int], Collection[int]] | None
    possible: Callable[[Tensor, Spec], bool] | None = None
    file_name: Callable[[WholeSpec], str] | None = None
    original: Callable[[bool, str], dict[str, Any]] | None = None

    def gives(self, codes: Tensor, spec: Spec) -> bool:
        """Return whether a weight quantized by `spec` can have these stored codes, int (out, ...)."""
        codes = codes.flatten(1).int()
        if self.possible:
            return called(self.possible, codes, spec)
        return self.codes is not None and set(codes.unique().tolist()) <= set(self.codes(spec.bits))


TABLE: dict[str, Kind] = {}
"""The loaded quantizers; use `lookup` to read it."""


def register(kind: Kind) -> None:
    """Add a quantizer to the table.

    Raises:
        TypeError: if `weight` or `activation` is no function.
        ValueError: for a name or short name that is taken, no widths, `end_bits` that do not fit `ends` and `bits`, or
            more codes than a width can hold.
    """
    traits, known = kind.traits, all_traits()
    if not callable(kind.weight) or not callable(kind.activation):
        raise TypeError(f"{traits.name}: weight and activation must be functions")
    if traits.name in TABLE or known.get(traits.name, traits) != traits:
        raise ValueError(f"a quantizer {traits.name!r} is already registered")
    if any(
        traits.short_name and other.short_name == traits.short_name
        for name, other in known.items()
        if name != traits.name
    ):
        raise ValueError(f"{traits.name}: the short name {traits.short_name!r} is taken")
    if not traits.bits or (kind.codes and not all(1 <= bits <= 8 for bits in traits.bits)):
        raise ValueError(f"{traits.name}: bits must be numbers from 1 to 8, not {traits.bits}")
    if traits.end_bits not in (traits.bits if traits.ends == "bits" else (None,)):
        raise ValueError(
            f"{traits.name}: end_bits {traits.end_bits} contradict ends {traits.ends!r} with widths {traits.bits}"
        )
    for bits in traits.bits if kind.codes else ():
        count = len(set((kind.codes or range)(bits)))
        if not 0 < count <= 2**bits:
            raise ValueError(f"{traits.name}: {count} codes do not fit {bits} bit")
    TABLE[traits.name] = kind


def all_traits() -> dict[str, Traits]:
    """Return the traits of every quantizer by name: those in this folder and those registered from elsewhere."""
    return {**{name: traits for name, (traits, _) in _own().items()}, **{n: kind.traits for n, kind in TABLE.items()}}


def traits(name: str) -> Traits:
    """Return the traits of a quantizer.

    Raises:
        ValueError: for an unknown name; its message names the most similar one, or all.
    """
    known = all_traits()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ValueError(
            f"unknown quantizer {name!r}: " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}")
        )
    return known[name]


def lookup(name: str) -> Kind:
    """Return a quantizer by its name; its file, and torch with it, is loaded if needed.

    Raises:
        ValueError: for an unknown name.
        UserError: exit 2 if its file cannot be imported or does not register it.
    """
    if name not in TABLE:
        traits(name)
        _load(_own()[name][1])
        if name not in TABLE:
            raise misdeclared(
                _own()[name][1], f"it does not register {name!r}", "end it with register(Kind(TRAITS, ...))"
            )
    return TABLE[name]


def _load(path: Path) -> None:
    """Import a quantizer's file."""
    import_module("torch")  # first: if it is missing, the file is not the cause
    with guarded(path):
        import_module(f"{__package__}.{path.stem}")


@cache
def _own() -> dict[str, tuple[Traits, Path]]:
    """Read `TRAITS` of every file in this folder, by the quantizer's name, without running the files.

    Raises:
        UserError: exit 2 for a file that cannot be read, or two files of one name or short name.
    """
    found: dict[str, tuple[Traits, Path]] = {}
    for path in sorted(Path(__file__).parent.glob("[!.]*.py")):  # not an editor's lock files
        if path.is_file() and (traits := declared(path)):
            for other, place in found.values():
                if traits.name == other.name or (traits.short_name and traits.short_name == other.short_name):
                    name = traits.name if traits.name == other.name else traits.short_name
                    raise misdeclared(path, f"{place.name} has the name {name!r}, too", "give it another name")
            found[traits.name] = (traits, path)
    return found
