"""The traits of a quantizer, and how to read them from the text of its file, which is not run."""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engine.errors import first_line
from models.layers.quantizers.guard import MEND, misdeclared


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

    Raises:
        TypeError: for a value of another type.
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
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05
    refining_lr: float = 0.02
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        hints = get_type_hints(Traits)
        for each in fields(self):
            if not _fits(value := getattr(self, each.name), hints[each.name]):
                raise TypeError(f"{each.name} is {value!r}, not {each.type}")


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of a field of Traits; an int is a float, too."""
    types = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, types[0]) for item in value)
    if get_origin(hint) is Literal:
        return value in types
    if types:
        return any(_fits(value, kind) for kind in types)
    return type(value) is hint or (hint is float and type(value) is int)


def declared(path: Path) -> Traits | None:
    """Read `TRAITS` of a file without running it; None for a file that registers no quantizer.

    Raises:
        UserError: exit 2 for a file that Python cannot read, or one that calls `register` and whose `TRAITS` cannot be
            read.
    """
    try:
        body = ast.parse(path.read_bytes()).body
    except SyntaxError as fault:
        raise misdeclared(path, f"{type(fault).__name__}: {fault.msg}", MEND, fault.lineno) from fault
    except (OSError, RecursionError, MemoryError) as fault:  # the last two for code that is nested too deeply
        raise misdeclared(path, f"it cannot be read: {first_line(fault)}", MEND) from fault
    calls = [
        node.value for node in body if isinstance(node, (ast.Assign, ast.Expr)) and isinstance(node.value, ast.Call)
    ]
    targets = [(t, node.value) for node in body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [(node.target, node.value) for node in body if isinstance(node, ast.AnnAssign) and node.value]
    given = [value for target, value in targets if ast.unparse(target) == "TRAITS"]
    if not given and all(ast.unparse(call.func) not in ("register", "kinds.register") for call in calls):
        return None
    try:
        if len(given) != 1:
            raise ValueError(f"{len(given)} assignments to TRAITS")
        (call,) = given
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("TRAITS is not a call with keywords alone")
        traits = Traits(**{str(word.arg): _literal(word) for word in call.keywords})
        if not traits.name or not traits.bits:
            raise ValueError("name and bits must not be empty")
        return traits
    except (TypeError, ValueError) as fault:
        raise misdeclared(
            path,
            f"its traits cannot be read: {first_line(fault)}",
            "write TRAITS = Traits(name=..., bits=(...)) at the top level, with keywords and literals, because the file "
            "is not run to read it",
        ) from fault


def _literal(word: ast.keyword) -> Any:
    """Return the value of a keyword of `TRAITS`."""
    try:
        return ast.literal_eval(word.value)
    except ValueError as fault:
        raise ValueError(f"{ast.unparse(word)} is not a literal") from fault
