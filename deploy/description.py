"""Convert a program to the contents of a packed file and back: plain JSON, and rows of codes, numbers and integers.

An operation's fields are written according to their types. Fields with their default value are left out, and so is
the source if it is the operation before. An array that several operations read is written once. Reading checks
everything: it refuses a wrong type, an unknown field, and a part of a row beyond its end.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from deploy import codes
from deploy.file import KINDS, Rows
from deploy.operations import functions, layers, places, pools
from deploy.operations.base import Codes, Operation, short
from deploy.program import Program
from models.layers.quantizers.base import Signs, Steps

OPERATIONS: dict[str, type[Operation]] = {
    name: kind
    for room in (layers, functions, places, pools)
    for name, kind in vars(room).items()
    if isinstance(kind, type) and issubclass(kind, Operation) and kind is not Operation
}
"""Operation classes by their names in files."""


def written(program: Program) -> tuple[dict[str, Any], Rows]:
    """Convert a program to JSON values and rows."""
    writer = _Writer()
    said = {
        "picture": list(program.picture),
        "mean": list(program.mean),
        "std": list(program.std),
        "operations": [writer.operation(number, operation) for number, operation in enumerate(program.operations)],
    }
    return said, writer.rows()


class _Writer:
    def __init__(self) -> None:
        self.parts: dict[str, list[NDArray[Any]]] = {name: [] for name in KINDS}
        self.at = dict.fromkeys(self.parts, 0)
        self.known: dict[tuple[Any, ...], list[int]] = {}

    def rows(self) -> Rows:
        return Rows(*(np.concatenate([np.zeros(0, kind), *self.parts[name]]) for name, (_, kind, _) in KINDS.items()))

    def operation(self, number: int, operation: Operation) -> dict[str, Any]:
        said = {"op": type(operation).__name__, **self.fields(operation)}
        if operation.sources == (number,):
            del said["sources"]
        return said

    def fields(self, held: Any) -> dict[str, Any]:
        said = {}
        for field in fields(held):
            value = getattr(held, field.name)
            if field.default is MISSING or not _equal(value, field.default):
                said[field.name] = self.value(value)
        return said

    def value(self, value: Any) -> Any:
        if isinstance(value, (Steps, Signs)):
            return list(value)
        if isinstance(value, Codes):
            return self.codes(value)
        if isinstance(value, np.ndarray):
            return self.array(value)
        if is_dataclass(value):
            return self.fields(value)
        if isinstance(value, float) and math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return list(map(self.value, value)) if isinstance(value, tuple) else value

    def array(self, array: NDArray[Any]) -> list[int]:
        """Store an array; return where it begins in its row, and its shape."""
        kind = next((name for name, (_, kind, _) in KINDS.items() if array.dtype == kind and name != "codes"), None)
        if kind is None:
            raise TypeError(f"a row of {array.dtype}")
        return self._kept(kind, array.reshape(-1), array.shape)

    def codes(self, held: Codes) -> dict[str, Any]:
        low = held.low.reshape(-1, *(1,) * (held.values.ndim - 1)) if len(held.low) > 1 else held.low
        stored = codes.packed(((held.values - low) // held.step).astype(np.uint8), held.levels)
        place = self._kept("codes", stored, held.shape, (held.levels, held.step, held.low.tobytes()))
        lowest = int(held.low[0]) if len(held.low) == 1 else self.array(held.low)
        return {"at": place, "levels": held.levels, "step": held.step, "low": lowest}

    def _kept(self, kind: str, flat: NDArray[Any], shape: tuple[int, ...], more: tuple[Any, ...] = ()) -> list[int]:
        """Store an array, equal arrays with equal `more` once; return where it begins in its row, and its shape."""
        key = (kind, shape, more, hashlib.sha256(flat.tobytes()).digest())
        if key not in self.known:
            self.known[key] = [self.at[kind], *shape]
            self.parts[kind].append(flat)
            self.at[kind] += flat.size
        return self.known[key]


def _equal(value: Any, default: Any) -> bool:
    same = type(value) is type(default) and not isinstance(value, np.ndarray) and value == default
    return same and (
        type(value) is not float or math.copysign(1, value) == math.copysign(1, default)
    )  # -0.0 is another


def read(said: dict[str, Any], rows: Rows) -> Program:
    """Return the program of a description.

    Raises:
        ValueError: naming the part that `written` never writes or that does not fit the others.
    """
    try:
        return _read(said, rows)
    except RecursionError as fault:
        raise ValueError("its lists are nested too deeply") from fault


def _read(said: dict[str, Any], rows: Rows) -> Program:
    reader = _Reader(rows)
    keys = ["mean", "operations", "picture", "std"]
    if not isinstance(said, dict) or sorted(said) != keys:
        raise ValueError(f"a program has the keys {', '.join(keys)}")
    if not isinstance(said["operations"], list):
        raise ValueError("its operations are not a list")
    operations = []
    for number, held in enumerate(said["operations"]):
        try:
            operations.append(reader.operation(number, held))
        except ValueError as fault:
            raise ValueError(f"operation {number}: {fault}") from fault
    reader.check_parts()
    reals = tuple[float, ...]
    return Program(
        tuple(operations),
        reader.value(tuple[int, ...], said["picture"]),
        reader.value(reals, said["mean"]),
        reader.value(reals, said["std"]),
    )


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _looks_like(hint: Any, said: Any) -> bool:
    """Return whether a value has the form of a type: enough to choose between the types of a union."""
    if hint is Steps or hint is Signs:
        return isinstance(said, list) and len(said) == (4 if hint is Steps else 1)
    if hint is type(None) or said is None:
        return hint is type(None) and said is None
    return isinstance(said, dict) if is_dataclass(hint) else not isinstance(said, dict)


class _Reader:
    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.known: dict[str, Any] = {}  # arrays that several operations read
        self.parts: dict[str, list[tuple[int, int]]] = {name: [] for name in KINDS}

    def check_parts(self) -> None:
        """Refuse parts that overlap, which could take far more memory than the file, and numbers that nothing reads."""
        for name, parts in self.parts.items():
            end = 0
            for start, count in sorted(parts):
                if start != end:
                    raise ValueError(f"its {name} from {min(start, end)} on are read twice or not at all")
                end = start + count
            if end != len(getattr(self.rows, name)):
                raise ValueError(f"no operation reads its {name} from {end} on")

    def part(self, name: str, start: int, count: int) -> NDArray[Any]:
        row = getattr(self.rows, name)
        if start + count > len(row):
            raise ValueError(f"a part that ends at {start + count} of a row of {len(row)}")
        self.parts[name].append((start, count))
        return row[start : start + count]

    def operation(self, number: int, said: Any) -> Operation:
        if not isinstance(said, dict) or not isinstance(said.get("op"), str) or said["op"] not in OPERATIONS:
            name = said.get("op") if isinstance(said, dict) else said
            raise ValueError(f"unknown operation {short(name)}; a newer version may know it")
        held = {"sources": [number], **said}
        del held["op"]
        return self.fields(OPERATIONS[said["op"]], held)

    def fields(self, kind: Any, said: Any) -> Any:
        if not isinstance(said, dict):
            raise ValueError(f"{kind.__name__} is written as {short(said)}")
        hints, known = _hints(kind), {field.name: field for field in fields(kind)}
        if unknown := sorted({*said} - {*known}):
            raise ValueError(f"{kind.__name__} has no {short(unknown[0])}")
        for name, field in known.items():
            if name not in said and field.default is MISSING:
                raise ValueError(f"{kind.__name__} has no {name}")
        return kind(**{name: self.value(hints[name], value, name) for name, value in said.items()})

    def value(self, hint: Any, said: Any, name: str = "it") -> Any:
        """Read a value of the type `hint`; refuse any other type."""
        for reading in (self._array, self._plain, self._tuple):
            if (found := reading(hint, said)) is not None:
                return found
        if get_origin(hint) in (Union, types.UnionType):
            return self._one_of(get_args(hint), said, name)
        if hint is type(None) and said is None:
            return None
        if get_origin(hint) is Literal and said in get_args(hint) and isinstance(said, str):
            return said
        if hint is Steps or hint is Signs:
            return self._grid(hint, said)
        if hint is Codes:
            return self._codes(said)
        if is_dataclass(hint):
            return self.fields(hint, said)
        raise ValueError(f"{name} is {short(said)}")

    def _one_of(self, hints: tuple[Any, ...], said: Any, name: str) -> Any:
        fitting = [hint for hint in hints if _looks_like(hint, said)]
        if not fitting:
            raise ValueError(f"{name} is {short(said)}")
        return self.value(fitting[0], said, name)

    def _plain(self, hint: Any, said: Any) -> Any:
        if hint is bool or hint is str:
            return said if type(said) is hint else None
        if hint is int:
            return said if type(said) is int and abs(said) <= 2**31 else None
        if hint is float:
            if said in ("inf", "-inf"):
                return float(said)
            return float(said) if type(said) in (int, float) and abs(said) < 1e308 else None
        return None

    def _tuple(self, hint: Any, said: Any) -> Any:
        if get_origin(hint) is not tuple:
            return None
        each = get_args(hint)
        if not isinstance(said, list) or (each[-1] is not Ellipsis and len(said) != len(each)):
            raise ValueError(f"{short(said)} is not a list{'' if each[-1] is Ellipsis else f' of {len(each)}'}")
        kinds = each[:1] * len(said) if each[-1] is Ellipsis else each
        return tuple(self.value(kind, value) for kind, value in zip(kinds, said, strict=True))

    def _grid(self, hint: Any, said: Any) -> Steps | Signs:
        if not isinstance(said, list) or len(said) != (4 if hint is Steps else 1):
            raise ValueError(f"a grid is written as {short(said)}")
        if hint is Steps:
            inverse, scale = (self.value(float, number, "a step") for number in said[:2])
            low, high = (self.value(int, number, "a code") for number in said[2:])
            return Steps(inverse, scale, low, high)
        return Signs(None if said[0] is None else self.value(float, said[0], "an edge"))

    def _array(self, hint: Any, said: Any) -> Any:
        if get_origin(hint) is not Annotated:
            return None
        kind = get_args(hint)[1]
        start, shape = self._place(said)
        key = f"{kind} {json.dumps(said)}"
        if key not in self.known:
            self.known[key] = self.part(kind, start, math.prod(shape)).reshape(shape)
        return self.known[key]

    def _codes(self, said: Any) -> Codes:
        if not isinstance(said, dict) or sorted(said) != ["at", "levels", "low", "step"]:
            raise ValueError(f"codes are written as {short(said)}, not by at, levels, low and step")
        key = json.dumps(said, sort_keys=True)
        if key not in self.known:
            start, shape = self._place(said["at"])
            levels, step = (self.value(int, said[name], name) for name in ("levels", "step"))
            if not 1 <= step <= 64 or not shape:
                raise ValueError(
                    f"codes of shape {shape} in steps of {step}: they need an axis, and a step from 1 to 64"
                )
            low = np.array([said["low"]], np.int32) if type(said["low"]) is int and abs(said["low"]) <= 512 else (
                self.value(Annotated[NDArray[np.int32], "integers"], said["low"], "low"))  # fmt: skip
            if low.shape not in ((1,), shape[:1]) or np.abs(low.astype(np.int64)).max(initial=0) > 512:
                raise ValueError("the lowest codes are not one for all rows or one for each, or one is beyond +-512")
            count = math.prod(shape)
            stored = self.part("codes", start, codes.size(count, levels))
            found = codes.unpacked(stored, count, levels).reshape(shape).astype(np.int16)
            found = found * np.int16(step) + low.reshape(-1, *(1,) * (len(shape) - 1)).astype(np.int16)
            self.known[key] = Codes(found, levels, step, low)
        return self.known[key]

    def _place(self, said: Any) -> tuple[int, tuple[int, ...]]:
        if not isinstance(said, list) or not 1 <= len(said) <= 9:
            raise ValueError(f"a place is written as {short(said)}, not as [start, *shape]")
        start, *shape = (self.value(int, number, "a place") for number in said)
        if start < 0 or any(size < 1 for size in shape) or math.prod(shape) > 2**31:
            raise ValueError(f"a part of shape {shape} at {start}")
        return start, tuple(shape)
