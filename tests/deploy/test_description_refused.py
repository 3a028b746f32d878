"""Descriptions that the toolkit never writes: each is refused with a ValueError of one short line that names the fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy import description
from deploy.file import Rows
from deploy.operations.base import Codes
from deploy.operations.layers import Linear
from deploy.program import Program


def rows_of(codes: int = 0, numbers: int = 0, integers: int = 0) -> Rows:
    return Rows(np.zeros(codes, np.uint8), np.ones(numbers, np.float32), np.ones(integers, np.int32))


NONE = rows_of()
ROWS = rows_of(codes=4, numbers=40)._replace(integers=np.array([1000, -1000, 3], np.int32))
CODED = {"op": "Quantize", "name": "in", "grid": [1.0, 1.0, 0, 255]}
RELU = {"op": "Function", "name": "act", "kind": "relu"}
CODES = {"at": [0, 2, 4], "levels": 16, "step": 1, "low": -8}
LONG = [1] * 10_000
PAD = {"op": "Pad", "name": "pad", "sides": [1, 1, 1, 1]}


def read(*operations: Any, rows: Rows = NONE, **changes: Any) -> Program:
    said = {"picture": [1, 4, 4], "mean": [0.5], "std": [0.25], "operations": list(operations), **changes}
    return description.read(said, rows)


def refused(error: str, *operations: Any, rows: Rows = NONE, **changes: Any) -> None:
    with pytest.raises(ValueError) as fault:
        read(*operations, rows=rows, **changes)
    said = str(fault.value)
    assert error in said
    assert said.isprintable()
    assert len(said) < 300


def linear(weight: Any, **more: Any) -> dict[str, Any]:
    return {"op": "Linear", "name": "fc", "matrix": {"weight": weight, **more}}


def test_what_the_tables_below_change_is_read() -> None:
    coded = linear({**CODES, "low": [2, 1]}, scale=[36, 2], bias=[0, 2], shift=[38, 2])
    read(CODED, coded, RELU, linear([0, 18, 2]), rows=ROWS)
    read(CODED, linear(CODES, scale=None), rows=rows_of(codes=4))
    read(PAD, RELU, {"op": "Quantize", "name": "q", "grid": [None]}, linear([0, 1, 6]), rows=rows_of(numbers=6))
    read({"op": "Function", "name": "act", "kind": "clamp", "settings": ["-inf", 6]})


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        *[({**RELU, "op": op}, f"unknown operation {op!r}; a newer version may know it")
          for op in ("Run", "Operation", None, ["Function"])],
        *[(said, f"operation 0: unknown operation {said!r}") for said in ([], None)],
        ({"name": "act"}, "unknown operation None"),
        ({**RELU, "op": "a\n" * 1000}, r"unknown operation 'a\na\n"),
        ({**RELU, "reads": 1}, "Function has no 'reads'"),
        ({**RELU, "a\n" * 1000: 1}, r"Function has no 'a\na\n"),
        ({"op": "Function", "name": "act"}, "Function has no kind"),
        ({"op": "Function", "kind": "relu"}, "Function has no name"),
        *[({**RELU, "name": name}, f"name is {name!r}") for name in (3, ["act"])],
        *[({**RELU, "kind": kind}, f"kind is {kind!r}") for kind in ("eval", ["relu"], True)],
        ({**RELU, "sources": 0}, "0 is not a list"),
        *[({**RELU, "sources": [n]}, f"it is {n!r}") for n in (True, 0.0, "0", None, 2**31 + 1)],
        ({**RELU, "sources": [-1]}, "operation 0 (Function act): it reads values (-1,)"),
        ({**RELU, "sources": [1]}, "operation 0 (Function act): it reads values (1,), not from 0 to 0"),
        ({**RELU, "sources": []}, "operation 0 (Function act): it reads 0 values"),
        ({**RELU, "settings": [1.0]}, "relu with the settings (1.0,)"),
        ({**RELU, "kind": "leaky_relu", "settings": [1e39]}, "leaky_relu with the settings (1e+39,)"),  # fp32 has none
        ({**RELU, "kind": "leaky_relu", "settings": ["inf"]}, "leaky_relu with the settings (inf,)"),
        ({**RELU, "kind": "clamp", "settings": [0, "nan"]}, "it is 'nan'"),
        ({**RELU, "kind": "clamp", "settings": [0, 10**400]}, "it is 1000000"),
        ({**RELU, "kind": "clamp", "settings": [0, True]}, "it is True"),
        ({**RELU, "kind": "clamp", "settings": "inf"}, "'inf' is not a list"),
        *[({**PAD, "sides": sides}, f"{sides!r} is not a list of 4") for sides in ([1] * 3, [1] * 5, "1111", {"0": 1})],
        ({**PAD, "sides": [1, 1, 1, 1.0]}, "it is 1.0"),
        ({**PAD, "channels": [1]}, "[1] is not a list of 2"),
        *[({**PAD, "fill": fill}, f"fill is {fill!r}") for fill in ("0", None)],
        ({"op": "MaxPool", "name": "m", "kernel": [2, 2], "stride": [2, 2], "ceil": 1}, "ceil is 1"),
        ({"op": "AveragePool", "name": "m", "kernel": [2, 2], "stride": [2, 2], "divisor": 1.5}, "divisor is 1.5"),
        *[({**CODED, "grid": grid}, f"grid is {grid!r}") for grid in ([1.0, 1.0, 0], [], "1111", None, {})],
        ({**CODED, "grid": [1.0, 1.0, 0, 255.0]}, "a code is 255.0"),
        ({**CODED, "grid": [None, 1.0, 0, 255]}, "a step is None"),
        ({**CODED, "grid": [True]}, "an edge is True"),
        ({"op": "Linear", "name": "fc", "matrix": [0, 2, 4]}, "Matrix is written as [0, 2, 4]"),
        ({"op": "Linear", "name": "fc", "matrix": {}}, "Matrix has no weight"),
        (linear(None), "weight is None"),
        ({"op": "Slopes", "name": "s", "slope": CODES}, "a place is written as {'at': [0, 2, 4]"),
        ({"op": "Affine", "name": "a", "shift": CODES}, "shift is {'at': [0, 2, 4]"),
        (linear([0, 2, 4], gain=1), "Matrix has no 'gain'"),
        *[({"op": "Reshape", "name": "r", "shape": [1] * axes + [16]}, "operation 0 (Reshape r): a value of shape (1, 4, 4)")
          for axes in (8, 70)],
    ],
)  # fmt: skip
def test_operations_that_are_none(operation: Any, error: str) -> None:
    refused(error, operation)


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ([-1, 2, 4], "a part of shape [2, 4] at -1"),
        ([33, 2, 4], "a part that ends at 41 of a row of 40"),
        ([2**31, 2, 4], f"a part that ends at {2**31 + 8} of a row of 40"),
        *[([n, 2, 4], f"a place is {n!r}") for n in (2**31 + 1, 2**70, 0.0, False, "0", None, [])],
        ([0, -2, 4], "a part of shape [-2, 4] at 0"),
        ([0, 0, 4], "a part of shape [0, 4] at 0"),
        ([0, 2**31, 2**31], f"a part of shape [{2**31}, {2**31}] at 0"),
        ([0, 2**31, 1], f"a part that ends at {2**31} of a row of 40"),
        ([0, 2, 4.0], "a place is 4.0"),
        ([0] + [1] * 9, "a place is written as [0, 1, 1, 1, 1, 1, ...]"),  # 9 axes
        *[(said, f"a place is written as {said!r}") for said in ([], "0", 0)],
    ],
)
def test_parts_that_are_not_there(place: Any, error: str) -> None:
    refused(error, linear(place), rows=ROWS)
    codes = linear({**CODES, "levels": 256, "at": place})
    refused("operation 1: " + error.replace("row of 40", "row of 4"), CODED, codes, rows=ROWS)


@pytest.mark.parametrize(
    ("key", "said", "error"),
    [
        *[("levels", n, f"codes of {n} levels, not 3 or a power of two from 2 to 256") for n in (5, 0, -2, 512, 2**31)],
        *[("levels", said, f"levels is {said!r}") for said in (2.0, True, None, "16", [16])],
        *[("step", n, f"codes of shape (2, 4) in steps of {n}") for n in (0, 65, -1)],
        *[("step", said, f"step is {said!r}") for said in (1.0, True, None, "1")],
        *[("low", said, f"a place is written as {said!r}") for said in (513, -(2**31), -1.0, False, None, "0", [])],
        *[("low", said, "the lowest codes are not one for all rows or one for each, or one is beyond +-512") for said in ([0, 2], [0, 3], [0, 2, 1])],  # integer 0 is 1000
        ("low", [3, 2], "a part that ends at 5 of a row of 3"),
        ("at", [0], "codes of shape () in steps of 1"),
        ("at", [0, 5, 4], "a part that ends at 10 of a row of 4"),
        ("more", 1, "codes are written as {'at': [0, 2, 4]"),
    ],
)  # fmt: skip
def test_codes_that_are_none(key: str, said: Any, error: str) -> None:
    """A weight may be codes or numbers; the error fits the form that was used."""
    refused(f"operation 1: {error}", CODED, linear({**CODES, key: said}), rows=ROWS)


@pytest.mark.parametrize("key", sorted(CODES))
def test_codes_without_one_of_their_parts(key: str) -> None:
    refused("operation 1: codes are written as", CODED, linear({k: CODES[k] for k in CODES if k != key}), rows=ROWS)


@pytest.mark.parametrize(
    ("places", "size", "error"),
    [
        *[(places, 8, "its {} from 2 on are read twice or not at all") for places in (
            [[0, 4], [2, 6]], [[2, 6], [0, 4]], [[0, 8], [2, 4]],  # some are read twice
            [[0, 2], [4, 4]], [[4, 4], [0, 2]])],  # a gap
        ([[0, 4], [0, 2, 2]], 4, "its {} from 0 on are read twice or not at all"),  # the same in another shape
        ([[1, 4]], 5, "its {} from 0 on are read twice or not at all"),
        ([[0, 4]], 5, "no operation reads its {} from 4 on"),
        ([[4, 4], [0, 4], [4, 4]], 9, "no operation reads its {} from 8 on"),
        ([], 1, "no operation reads its {} from 0 on"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", Rows._fields)
def test_each_number_is_of_one_part(kind: str, places: list[list[int]], size: int, error: str) -> None:
    """In numbers of no part a file could hide data; with numbers of several parts a short file could take much memory."""
    operations = {
        "codes": [CODED, *(linear({**CODES, "levels": 256, "at": place}) for place in places), linear([0, 1])],
        "numbers": [linear(place) for place in places],
        "integers": [linear([0, 1], bias=place) for place in [*places, None]],
    }
    refused(error.format(kind), *operations[kind], rows=rows_of(**{"numbers": 1, kind: size}))


@pytest.mark.parametrize("changes", [{"levels": 256, "at": [0, 1, 4]}, {"step": 2}, {"low": 0}, {"at": [0, 4, 2]}])
def test_one_part_is_not_read_as_codes_of_two_kinds(changes: dict[str, Any]) -> None:
    error = "its codes from 0 on are read twice or not at all"
    refused(error, CODED, linear(CODES), linear({**CODES, **changes}), rows=rows_of(codes=4))


def weights(program: Program) -> list[Codes | NDArray[np.float32]]:
    return [operation.matrix.weight for operation in program.operations if isinstance(operation, Linear)]


def test_parts_may_be_read_often_and_in_any_order() -> None:
    numbers = np.arange(32, dtype=np.float32)
    found = weights(
        read(linear([16, 4, 4]), linear([0, 4, 4]), linear([16, 4, 4]), rows=NONE._replace(numbers=numbers))
    )
    first, second = numbers.reshape(2, 4, 4)
    np.testing.assert_array_equal(found, [second, first, second])
    join = {"op": "Concatenate", "name": "join", "axis": 2, "sources": [2, 3]}
    rows = NONE._replace(codes=np.array([0x10, 0x32, 0x54, 0x76], np.uint8))  # two codes a byte
    coded = weights(read(CODED, linear(CODES), {**linear(CODES), "sources": [1]}, join, rows=rows))
    assert len(coded) == 2
    for each in coded:
        assert isinstance(each, Codes)
        np.testing.assert_array_equal(each.values, np.arange(8).reshape(2, 4) - 8)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"more": 1}, "a program has the keys mean, operations, picture, std"),
        ({"operations": {}}, "its operations are not a list"),
        ({"operations": "relu"}, "its operations are not a list"),
        ({"operations": []}, "0 operations"),
        ({"operations": [RELU, {**RELU, "sources": [0]}]}, "operation 0: no operation reads its value"),
        ({"operations": [linear([0, 4])], "rows": rows_of(numbers=4)}, "(Linear fc): a weight of shape (4,) on a value of"),
        ({"operations": [CODED, linear({**CODES, "at": [0, 2, 2, 2]})], "rows": rows_of(codes=4)},
         "operation 1 (Linear fc): a weight of shape (2, 2, 2) on a value of shape (1, 4, 4)"),
        ({"picture": [1, 4]}, "pictures of shape (1, 4)"),
        ({"picture": [1, 4, 4.0]}, "it is 4.0"),
        ({"picture": "144"}, "'144' is not a list"),
        ({"picture": [1, 2**15, 2**15]}, "pictures of shape (1, 32768, 32768)"),
        ({"picture": [1, -4, 4]}, "pictures of shape (1, -4, 4)"),
        ({"mean": ["inf"]}, "mean (inf,)"),
        ({"mean": [False]}, "it is False"),
        ({"std": [0]}, "std (0.0,) of 1 channels"),
        ({"std": 1.0}, "1.0 is not a list"),
        ({"std": None}, "None is not a list"),
        ({"picture": LONG}, "pictures of shape (1, 1, "),
        ({"mean": LONG}, "mean (1.0, 1.0, "),
        ({"std": LONG}, "std (1.0, 1.0, "),
    ],
)  # fmt: skip
def test_programs_that_are_none(changes: dict[str, Any], error: str) -> None:
    refused(error, RELU, **changes)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ({"op": "Reshape", "shape": LONG}, "as one of shape (1, 1, "),
        ({"op": "Permute", "axes": LONG}, "axes (1, 1, "),
        ({"op": "Reduce", "kind": "max", "axes": LONG}, "axes (1, 1, "),
        ({"op": "Concatenate", "axis": 0, "sources": LONG}, "it reads values (1, 1, "),
        ({"op": "Function", "kind": "relu", "settings": LONG}, "relu with the settings (1.0, 1.0, "),
    ],
)
def test_what_a_file_says_is_told_in_one_short_line(operation: dict[str, Any], error: str) -> None:
    refused(error, {"name": "a\n\x1b[2J" * 100, **operation})


def test_a_program_is_a_dict_with_all_it_says() -> None:
    said = {"picture": [1, 4, 4], "mean": [0.5], "std": [0.25], "operations": [RELU]}
    for wrong in ({key: value for key, value in said.items() if key != "std"}, [said], None, "program", {}):
        with pytest.raises(ValueError, match="a program has the keys mean, operations, picture, std"):
            description.read(wrong, NONE)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [10, 500, 980, 5000, 100_000])
def test_lists_in_lists_are_refused_however_deep(depth: int) -> None:
    bomb: list[Any] = []
    for _ in range(depth):
        bomb = [bomb]
    for operation in (bomb, {**RELU, "op": bomb}, {**RELU, "settings": bomb}, {**PAD, "sides": bomb}, linear(bomb)):
        refused("operation 0: ", operation)
    told = "operation 1: a place is [[[" if depth <= 500 else "nested too deeply" if depth >= 100_000 else ""
    refused(told, CODED, linear({**CODES, "at": bomb}))
    refused(told, CODED, linear({**CODES, "low": bomb}), rows=ROWS)
    refused("it is [[[", RELU, picture=bomb)
    refused("it is [[[", RELU, std=bomb)
