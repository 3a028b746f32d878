"""Packing from end to end: files of every stage, their default names, the output, and the listing of a packed file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deploy import description, packed
from deploy.listing import layers
from deploy.operations.base import Codes
from engine.system import files
from tests.tools.contents import raw

Command = Callable[..., SimpleNamespace]
PACK = "deploy.pack"
INTEGER = {
    "prune": 0, "refine": 0, "refine_merged": 0, "w4a4": 8, "lsq_w4a4": 9, "int8_q0_fold0": 9, "ptq_kl": 9, "wbab": 8,
    "wbab_merged": 8, "wtab": 8, "wtab_ends": 8, "wtab_ends_merged": 8,
}  # fmt: skip
"""By file, the number of integer layers of its nine: the first reads bytes, the last may read fp32."""
ROUNDED = {"w4a4": 2, "int8_q0_fold0": 1, "ptq_kl": 1, "wbab": 2, "wbab_merged": 2, "wtab": 2}
"""Files with ends that were trained with float numbers, and how many of the two."""


def checkpoint(stem: str) -> str:
    return f"models_save/nin_{stem}.pth"


@pytest.mark.parametrize("stem", INTEGER)
def test_files_of_any_stage_are_packed(stem: str, stocked: Command) -> None:
    source = checkpoint(stem)
    result = stocked(PACK, "--model", source)
    assert result.code == 0
    ends = ["block1.conv", "block9.conv"][: ROUNDED.get(stem, 0)]
    assert (f"stored in 8 bits, trained with float numbers: {', '.join(ends)}. Some" in result.err) == bool(ends)
    assert bool(result.err) == bool(ends)
    assert result.path == f"models_save/nin_{stem}.safetensors"
    held, known = packed.open(Path(result.path)), raw(source)
    before, size = Path(source).stat().st_size, Path(result.path).stat().st_size
    assert result.out.splitlines() == [
        f"{source}: {before:,} bytes -> {size:,} bytes; tables count {held.bits // 8:,} bytes for the merged "
        "checkpoint, whose ends are as trained and which has no description", result.path,
    ]  # fmt: skip
    assert size < before
    whole = [is_whole for _, is_whole in layers(held.program)]
    assert (len(whole), sum(whole)) == (9, INTEGER[stem])
    assert (held.made.arch, held.made.cfg, held.made.metrics.accuracy) == ("nin", known["cfg"], known["best_acc"])
    stages = [stage["stage"] for stage in known["transforms"]]
    assert [stage["stage"] for stage in held.made.to_dict()["transforms"]] == [
        *stages, *["merge"] * ("merge" not in stages),
    ]  # fmt: skip
    made = held.made.provenance
    assert (made.command, made.parent) == (f"python -m deploy.pack --model {source}", source)
    assert made.parent_sha256 == files.sha256(Path(source))


@pytest.mark.parametrize("stem", ["refine", "w4a4", "wbab", "wtab_ends", "ptq_kl"])
def test_merging_first_gives_the_same_program(stem: str, stocked: Command) -> None:
    programs = [
        description.written(packed.open(Path(stocked(PACK, "--model", checkpoint(name)).path)).program)
        for name in (stem, f"{stem}_merged")
    ]
    (said, rows), (said_merged, rows_merged) = programs
    assert said == said_merged
    for one, other in zip(rows, rows_merged, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("stem", ["w4a4", "wbab", "wtab"])
def test_ends_stay_float_where_they_are_to(stem: str, stocked: Command) -> None:
    small = stocked(PACK, "--model", checkpoint(stem)).path
    large = stocked(PACK, "--model", checkpoint(stem), "--ends", "float", "--save", "large.safetensors").path
    kinds = [
        [
            operation.matrix.weight.levels if isinstance(operation.matrix.weight, Codes) else "float"
            for operation, _ in layers(packed.open(Path(path)).program)
        ]
        for path in (small, large)
    ]
    levels = {"w4a4": 16, "wbab": 2, "wtab": 3}[stem]
    assert kinds == [[256, *[levels] * 7, 256], ["float", *[levels] * 7, "float"]]
    assert Path(large).stat().st_size > Path(small).stat().st_size


def test_json_says_what_was_written(stocked: Command) -> None:
    result = stocked(PACK, "--model", checkpoint("w4a4"), "--json")
    found, content = json.loads(result.out), Path("models_save/nin_w4a4.safetensors").read_bytes()
    assert found == {
        "path": "models_save/nin_w4a4.safetensors",
        "bytes_before": Path(checkpoint("w4a4")).stat().st_size,
        "bytes": len(content),
        "counted_bytes": packed.open(Path("models_save/nin_w4a4.safetensors")).bits // 8,
        "sha256": hashlib.sha256(content).hexdigest(),
        "operations": 32,
        "layers": 9,
        "integer_layers": 8,
    }


@pytest.mark.parametrize("stem", ["w4a4", "wbab", "ptq_kl"])
def test_the_counted_bytes_are_those_of_the_merged_file_in_tables(stem: str, stocked: Command) -> None:
    found = json.loads(stocked(PACK, "--model", checkpoint(stem), "--json").out)
    merged = json.loads(stocked("scripts.summary", checkpoint(f"{stem}_merged"), "--json").out)
    assert found["counted_bytes"] == merged["bits"] // 8


def test_a_listing_has_a_line_an_operation(stocked: Command) -> None:
    path = stocked(PACK, "--model", checkpoint("w4a4")).path
    before = Path(path).read_bytes()
    result = stocked(PACK, "--inspect", path)
    assert (result.code, result.err) == (0, "")
    head, *rows, empty, origin, whole, size = result.out.splitlines()
    assert head.split() == ["0", "operation", "name", "reads", "shape", "weights", "bytes"]
    assert [int(row.split()[0]) for row in rows] == [*range(1, 33)]
    cfg = raw(checkpoint("w4a4"))["cfg"]
    count = cfg[1] * cfg[0]  # block2.conv: 1x1
    bytes_ = (count + 1) // 2 + 4 * cfg[1] * 2  # codes of 4 bits; scales and biases
    assert [*rows[6].split()][1:] == [
        "Convolution", "block2.conv", "6", f"{cfg[1]}x8x8", f"{cfg[1]}x{cfg[0]}x1x1", "4", "bit", f"{bytes_}",
    ]  # fmt: skip
    accuracy = raw(checkpoint("w4a4"))["best_acc"]
    assert (empty, origin) == (
        "",
        f"nin, digits, accuracy {accuracy:.2f} % before it was packed; from {checkpoint('w4a4')}",
    )
    assert whole == "32 operations, 8 of 9 layers on integers"
    assert size.startswith(f"{len(before):,} bytes; ")
    told = json.loads(stocked(PACK, "--inspect", path, "--json").out)
    assert (told["sha256"], told["integer_layers"]) == (hashlib.sha256(before).hexdigest(), 8)
    assert [file.suffix for file in Path("models_save").iterdir()].count(".safetensors") == 1
    assert Path(path).read_bytes() == before


def test_a_second_pack_says_that_it_replaced(stocked: Command) -> None:
    first = stocked(PACK, "--model", checkpoint("refine"))
    before = Path(first.path).read_bytes()
    second = stocked(PACK, "--model", checkpoint("refine"))
    assert (first.err, second.err) == ("", f"replaced {first.path}\n")
    assert Path(first.path).read_bytes() == before
    Path(first.path).write_bytes(b"something else")
    assert stocked(PACK, "--model", checkpoint("refine")).err == f"replaced {first.path}\n"
    assert Path(first.path).read_bytes() == before


def test_the_default_file_is_the_merged_one(stocked: Command) -> None:
    result = stocked(PACK)
    assert (result.code, result.path) == (0, "models_save/nin_wbab_merged.safetensors")
    assert packed.open(Path(result.path)).made.provenance.parent == "models_save/nin_wbab_merged.pth"


def test_another_name_in_another_folder(stocked: Command) -> None:
    result = stocked(PACK, "--model", checkpoint("w4a4"), "--save", "there/small.safetensors")
    assert (result.code, result.path) == (0, "there/small.safetensors")
    again = stocked(PACK, "--model", result.path, "--save", "copy.safetensors")  # a packed file is copied as it is
    assert again.code == 0, again.err
    assert Path("copy.safetensors").read_bytes() == Path(result.path).read_bytes()
    assert not list(Path("models_save").glob("*.safetensors"))
