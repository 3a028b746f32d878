"""The packed file: read back bit for bit; a truncated, changed or handmade file is refused in one line."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from deploy import file
from deploy.file import Contents, Rows
from engine.errors import UserError
from tests import conftest

GIVEN = Contents(
    {"name": "net", "sizes": [3, 8], "nested": {"a": None}},
    Rows(
        np.arange(7, dtype=np.uint8),  # an odd length, so that the next row is unaligned
        np.array([1.5, -0.0, 1e-38], np.float32),
        np.array([-(2**31), 2**31 - 1], np.int32),
    ),
)


def refused(path: Path, *words: str) -> None:
    assert "\n" not in str(conftest.refused(path, *words, read=file.read))


def test_it_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    size = file.write(tmp_path / "a", GIVEN)
    found = file.read(tmp_path / "a")
    assert found.description == GIVEN.description
    for name, row in found.rows._asdict().items():
        assert row.tobytes() == getattr(GIVEN.rows, name).tobytes()
        assert row.flags.aligned
    assert found.size == size == (tmp_path / "a").stat().st_size
    assert size < 7 + 12 + 8 + 400
    file.write(tmp_path / "b", GIVEN)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(safetensors.numpy.load((tmp_path / "a").read_bytes())) == ["codes", "integers", "numbers"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(number: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        file.write(tmp_path / "a", Contents({}, GIVEN.rows._replace(numbers=np.array([number], np.float32))))
    assert not (tmp_path / "a").exists()


def test_cut_short_or_changed_in_any_byte_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    file.write(path, GIVEN)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(path)
    path.write_bytes(whole + b"\0")
    refused(path)


@pytest.mark.slow
def test_two_thousand_changes(tmp_path: Path) -> None:
    path, draw = tmp_path / "a", random.Random(0)
    file.write(path, GIVEN)
    whole = path.read_bytes()
    for _ in range(2000):
        changed = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            changed[draw.randrange(len(whole))] = draw.randrange(256)
        if bytes(changed) != whole:
            path.write_bytes(changed)
            refused(path)


def made(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None) -> Path:
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    return path


def described(words: str, **changes: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return tensors and metadata of a file with a right checksum."""
    tensors = {**GIVEN.rows._asdict(), **changes}
    checksum = file._checksum(words, Rows(*(tensors[name] for name in Rows._fields)))
    return tensors, {"packed": f"1 {checksum} {words}"}


@pytest.mark.parametrize(
    ("words", "changes", "error"),
    [
        ("[]", {}, "not a JSON object"),
        ("{", {}, "its description cannot be read"),
        ('{"a": 1, "a": 2}', {}, "an object has a duplicate key"),
        ('{"a": NaN}', {}, "NaN is not JSON"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", {}, "its description cannot be read"),
        ("{}", {"numbers": np.array([np.inf], np.float32)}, "not finite"),
        ("{}", {"numbers": np.array([1], np.float64)}, "its numbers are F64"),
        ("{}", {"codes": np.zeros((2, 2), np.uint8)}, "of shape [2, 2]"),
        ("{}", {"more": np.zeros(1, np.uint8)}, "it holds the tensors codes, integers, more, numbers"),
    ],
    ids=["list", "cut", "twice", "nan", "deep", "inf", "f64", "axes", "more"],
)
def test_files_made_by_hand_are_refused(words: str, changes: dict[str, Any], error: str, tmp_path: Path) -> None:
    refused(made(tmp_path / "a", *described(words, **changes)), error)


def test_another_format_and_no_packed_file_are_refused(tmp_path: Path) -> None:
    tensors, metadata = described("{}")
    refused(
        made(tmp_path / "a", tensors, {"packed": "4" + metadata["packed"][1:]}), "format 4; this version reads 1 to 3"
    )
    for later in "23":
        refused(
            made(tmp_path / "a", tensors, {"packed": later + metadata["packed"][1:]}), "its checksum does not match"
        )
    refused(made(tmp_path / "a", tensors, {"packed": "1"}), "not a packed file")
    refused(made(tmp_path / "b", tensors, None), "not a packed network")
    (tmp_path / "c").write_bytes(struct.pack("<Q", 2**60) + json.dumps({}).encode())
    refused(tmp_path / "c", "not a packed file")
    refused(tmp_path / "missing")
    refused(tmp_path)
