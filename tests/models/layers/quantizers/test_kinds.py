"""The table of quantizers: what it refuses, and that the traits read from a file's text equal those it registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import UserError
from models.layers.quantizers import kinds
from models.layers.quantizers.identity import Identity
from models.layers.quantizers.kinds import Kind, Traits
from models.layers.quantizers.traits import declared
from quant.quantizer_spec import QuantizerSpec


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Kind]:
    """Return a copy of the table that a test may change."""
    monkeypatch.setattr(kinds, "TABLE", dict(kinds.TABLE))
    return kinds.TABLE


def register(traits: Traits, codes: Any = lambda bits: range(2**bits)) -> None:
    kinds.register(Kind(traits, weight=lambda *_: Identity(), activation=lambda *_: Identity(), codes=codes))


def test_what_is_read_of_a_file_is_what_it_registers() -> None:
    for name, traits in kinds.all_traits().items():
        assert kinds.lookup(name).traits == traits
        assert traits.name == name


@pytest.mark.parametrize(
    "text",
    [
        'register(Kind(Traits(name="toy", bits=(2,)), None, None, None))',
        'TRAITS = Traits("toy", (2,))\nregister(None)',
        'TRAITS = Traits(name="toy", bits=tuple(BITS))\nkinds.register(None)',
        'TRAITS = Traits(name="toy", bit=(2,))\nregister(None)',
    ],
)
def test_traits_that_cannot_be_read_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(text)
    with pytest.raises(UserError, match=r"toy\.py: its traits cannot be read: ") as found:
        declared(tmp_path / "toy.py")
    assert found.value.hint.startswith("write TRAITS = ")


def test_traits_may_be_annotated(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text('TRAITS: Traits = Traits(name="toy", bits=(2,))\nregister(None)')
    assert declared(tmp_path / "toy.py") == Traits("toy", (2,))


@pytest.mark.parametrize("name", ["dorefa", "binary", "float", "toy"])
def test_a_name_is_registered_once(name: str, table: dict[str, Kind]) -> None:
    """This includes the name of a built-in quantizer whose file has not been loaded yet."""
    table.pop(name, None)
    if name == "toy":
        register(Traits("toy", (2,)))
    with pytest.raises(ValueError, match=f"'{name}' is already registered"):
        register(Traits(name, (3,)))
    assert table.keys() == {*kinds.TABLE}


def test_a_letter_is_taken_once(table: dict[str, Kind]) -> None:
    with pytest.raises(ValueError, match="short name 't' is taken"):
        register(Traits("toy", (2,), short_name="t"))
    assert "toy" not in table


@pytest.mark.parametrize(
    ("bits", "codes", "words"),
    [
        ((2,), range(5), "5 codes do not fit 2 bit"),
        ((1,), (-1, 0, 1), "3 codes do not fit 1 bit"),
        ((2, 3), range(5), "5 codes do not fit 2 bit"),
        ((2,), (), "0 codes do not fit 2 bit"),
        ((), range(2), "bits must be numbers from 1 to 8"),
        ((9,), range(2), "bits must be numbers from 1 to 8"),
        ((0,), range(1), "bits must be numbers from 1 to 8"),
    ],
)
def test_codes_have_to_fit_their_bits(bits: tuple[int, ...], codes: Any, words: str, table: dict[str, Kind]) -> None:
    with pytest.raises(ValueError, match=words):
        register(Traits("toy", bits), lambda _: codes)
    assert "toy" not in table
    register(Traits("toy", (3,)), lambda _: range(8))


@pytest.mark.parametrize("traits", [{"ends": "bits"}, {"ends": "bits", "end_bits": 8}, {"end_bits": 2}], ids=str)
def test_bits_of_the_ends_are_those_of_a_width(traits: dict[str, Any], table: dict[str, Kind]) -> None:
    with pytest.raises(ValueError, match="contradict ends"):
        register(Traits("toy", (2, 3), **traits))
    register(Traits("toy", (2, 3), ends="bits", end_bits=3))


@pytest.mark.parametrize(
    ("name", "words"),
    [("terary", "unknown quantizer 'terary': did you mean ternary?"), ("xyz", "one of affine, binary, dorefa")],
)
def test_an_unknown_name_is_refused(name: str, words: str) -> None:
    for ask in (kinds.traits, kinds.lookup, lambda name: QuantizerSpec(name, 2)):
        with pytest.raises(ValueError, match="unknown quantizer") as fault:
            ask(name)
        assert words in str(fault.value)


@pytest.mark.parametrize(
    ("spec", "right", "wrong"),
    [
        (QuantizerSpec("dorefa", 2), [[-3, -1, 1, 3]], [[-3, 0]]),
        (QuantizerSpec("binary", 1), [[-1, 1]], [[0, 1]]),
        (QuantizerSpec("ternary", 2), [[-1, 0, 1]], [[2, 0]]),
        (QuantizerSpec("affine", 2, symmetric=True), [[-1, 1]], [[-2, 1]]),
        (QuantizerSpec("affine", 2), [[-3, 0], [0, 3]], [[-1, 3], [0, 0]]),  # each filter has a zero point of its own
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_which_codes_a_weight_can_have(spec: QuantizerSpec, right: list, wrong: list) -> None:
    kind = kinds.lookup(spec.kind)
    assert kind.gives(torch.tensor(right, dtype=torch.int8), spec)
    assert not kind.gives(torch.tensor(wrong, dtype=torch.int8), spec)
