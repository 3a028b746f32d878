"""The table of quantizers: their traits and registration. torch is imported only when a quantizer is used.

A quantizer is a file in this folder with its formula, its modules, `TRAITS = Traits(...)` (keywords and literals)
and one call of `register`. --help and the checks of flags must not import torch, so they read `TRAITS` without running
the file.
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
    """The traits of a quantizer, in plain values.

    Args:
        name: the name in specs, in files and for --quantizer.
        bits: its bit widths. --quantizer offers the quantizers with several widths.
        words: its description in --help.
        short_name: its width in flags and file names; empty: the number.
        prefix: the prefix in file names, before w4a4; None: the name and `_`.
        family: the name of a family that shares a recipe; empty: the name.
        mixes: whether a layer's other quantizer may be of another kind, if that kind mixes as well.
        settings: the fields of QuantizerSpec and QuantSpec that it uses.
        input_ste: the default estimator of its activations.
        order: the default order of pool and batch norm if it codes activations.
        ends: its first and last layer: "float", they stay float; "picture", only the picture is not quantized; "bits",
            they have `end_bits`, one of `bits`.
        fixed_range: whether its activations have a fixed range for the output of a batch norm; other inputs then use
            measured ranges (affine).
        follows_sign: whether its activations are signed if no ReLU precedes them.
        bn_momentum: momentum of every BN in refining.
        optimizer, lr, refining_lr, weight_decay: settings of its recipe.
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
    """The settings of one quantizer; quant.spec.QuantizerSpec describes the fields."""

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
            return self.possible(codes, spec)
        return self.codes is not None and set(codes.unique().tolist()) <= set(self.codes(spec.bits))


TABLE: dict[str, Kind] = {}
"""The loaded quantizers; use `lookup` to read it."""


def register(kind: Kind) -> None:
    """Add a quantizer to the table.

    Raises:
        ValueError: for a name or short name that is taken, no widths, `end_bits` that do not fit `ends` and `bits`, or
            more codes than a width can hold.
    """
    traits, known = kind.traits, all_traits()
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
    """
    if name not in TABLE:
        traits(name)
        import_module(f"{__package__}.{_own()[name][1]}")
    return TABLE[name]


@cache
def _own() -> dict[str, tuple[Traits, str]]:
    """Read `TRAITS` and the name of every file in this folder, without running the files."""
    found = {path.stem: declared(path) for path in sorted(Path(__file__).parent.glob("*.py"))}
    return {traits.name: (traits, stem) for stem, traits in found.items() if traits}


def declared(path: Path) -> Traits | None:
    """Read `TRAITS` of a file without running it; None for a file that registers no quantizer.

    Raises:
        ValueError: for a file that calls `register` and whose `TRAITS` cannot be read.
    """
    body = ast.parse(path.read_text(encoding="utf-8")).body
    calls = [
        node.value for node in body if isinstance(node, (ast.Assign, ast.Expr)) and isinstance(node.value, ast.Call)
    ]
    given = [node.value for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TRAITS"]
    if not given and all(ast.unparse(call.func) not in ("register", "kinds.register") for call in calls):
        return None
    try:
        (call,) = given
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("no keywords")
        return Traits(**{str(word.arg): ast.literal_eval(word.value) for word in call.keywords})
    except (TypeError, ValueError) as fault:
        raise ValueError(
            f"{path.name} registers a quantizer without readable traits: write TRAITS = Traits(name=..., bits=(...)) at "
            "the top level, with keywords and literals, because the file is not run to read it"
        ) from fault
