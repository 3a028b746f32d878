"""A packed network is opened as it was saved; a changed description is refused in one line, or runs."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from deploy import file, packed
from deploy.executors.base import Executor
from deploy.lowering.walk import lower
from deploy.native import compiler
from deploy.native.executor import Native
from deploy.packed import Packed
from deploy.program import Program
from deploy.reference.run import run
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Merge, Prune, Quantize, Train
from engine.checkpoint.provenance import Provenance
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, UserError
from models.graph.capture.form import capture
from quant.prepare import prepare
from quant.quantizer_spec import QuantizerSpec
from quant.spec import QuantSpec
from tests import conftest

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
SPEC = QuantSpec(QuantizerSpec("dorefa", 4), QuantizerSpec("dorefa", 4))
MADE = Checkpoint(
    "plain:net", {"classes": 10, "width": None}, [8, 8], {},
    (Train(epochs=3, s=1e-4), Prune(percent=0.3, base=4, cfg_before=[16, 16]), Quantize(spec=SPEC.to_dict()), Merge()),
    DataInfo("folder", "é", 10, 8, MEAN, STD, 1, False, tuple("abcdefghij")),
    Metrics(91.25, 0.3, 1000, "test", {"pruning": {"before": 92.0}}),
    Provenance("python -m bn_merge", {"torch": "2"}, 1, "a.pth", "0" * 64),
    checksums=True,
)  # fmt: skip


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.b, self.head = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def tiny() -> Packed:
    torch.manual_seed(0)
    network = Tiny()
    for norm in (network.a[1], network.b[1]):
        nn.init.normal_(norm.running_mean, 0, 0.1)
        nn.init.uniform_(norm.weight, -3, 9)
        nn.init.normal_(norm.bias, 0, 2)
    form = merge(prepare(capture(network.eval(), (3, 8, 8), "a test"), SPEC).eval())
    return Packed(lower(form, MEAN, STD), MADE, 12_345)


@pytest.fixture
def path(tiny: Packed, tmp_path: Path) -> Path:
    packed.save(tiny, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_what_is_opened_is_what_was_saved(tiny: Packed, path: Path) -> None:
    found, x = packed.open(path), torch.randn(4, 3, 8, 8)
    wanted = run(tiny.program, x)
    assert torch.equal(run(found.program, x), wanted)
    assert not torch.equal(wanted[0], wanted[1])
    assert any(value.grid is not None for value in tiny.program.values)  # some layers are integer
    assert (found.made, found.bits) == (MADE, 12_345)
    assert found.made.to_dict() == MADE.to_dict()


def test_size_and_checksum_are_the_files(tiny: Packed, path: Path) -> None:
    content = path.read_bytes()
    found = packed.open(path)
    assert found.size == len(content) == packed.save(tiny, path)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert len(content) < 5000  # 24 * 9 + 80 bytes of ends, 288 of codes; the rest is words


def test_equal_networks_give_equal_bytes(tiny: Packed, path: Path, tmp_path: Path) -> None:
    packed.save(tiny, tmp_path / "again")
    packed.save(packed.open(path), tmp_path / "copied")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert (tmp_path / "copied").read_bytes() == path.read_bytes()


def test_gray_networks_are_saved_and_opened(tmp_path: Path) -> None:
    form = capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), (1, 8, 8), "a test")
    made = replace(MADE, dataset=MADE.dataset.normalised((0.5,), (0.25,)))
    packed.save(Packed(lower(form, (0.5,), (0.25,)), made, 1), tmp_path / "gray")
    assert packed.open(tmp_path / "gray").made == made


def test_imagenets_crop_is_saved_in_a_file_that_older_programs_refuse(tiny: Packed, path: Path, tmp_path: Path) -> None:
    """The file has format 2. A file of format 1 cannot have this crop; its pictures are cropped as before."""
    assert (file.read(path).version, packed.open(path).made.dataset.crop) == (1, "shift")
    made = replace(MADE, dataset=replace(MADE.dataset, crop="imagenet"))
    packed.save(replace(tiny, made=made), tmp_path / "cut")
    found = file.read(tmp_path / "cut")
    assert found.version == 2
    assert packed.open(tmp_path / "cut").made == made
    file.write(tmp_path / "forged", replace(found, version=1))
    conftest.refused(
        tmp_path / "forged", "pictures of --crop imagenet, which does not belong in format 1", read=packed.open
    )
    file.write(tmp_path / "forged", replace(file.read(path), version=2))
    conftest.refused(tmp_path / "forged", "--crop shift, which does not belong in format 2", read=packed.open)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    layer = nn.Conv2d(3, 2, 3)
    nn.init.constant_(layer.bias, math.inf)
    program = lower(capture(nn.Sequential(layer, nn.ReLU()).eval(), (3, 8, 8), "a test"), MEAN, STD)
    with pytest.raises(UserError, match="not finite"):
        packed.save(Packed(program, MADE, 1), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def forge(path: Path, words: str, rows: file.Rows) -> None:
    """Write a file with this description and a right checksum."""
    metadata = {"packed": f"1 {file._checksum(words, rows)} {words}"}
    path.write_bytes(safetensors.numpy.save(rows._asdict(), metadata))


def places(held: Any) -> list[tuple[Any, Any]]:
    """Return every dict and list inside, with each of its keys."""
    keys = list(held) if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else []
    return [(held, key) for key in keys] + [place for key in keys for place in places(held[key])]


def opened_or_refused(path: Path) -> UserError | Packed:
    """Return a file's contents, or the error that refuses it."""
    try:
        return packed.open(path)
    except UserError as fault:
        return fault


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"bits": -1}, "its description is not one of a packed network"),
        ({"bits": 1.0}, "its description is not one of a packed network"),
        ({"bits": True}, "its description is not one of a packed network"),
        ({"more": 1}, "its description is not one of a packed network"),
        ({"made": None}, "it does not describe the checkpoint it was made from"),
        ({"made": {}}, "lacks arch"),
        ({"program": {}}, "a program has the keys"),
        ({"program": None}, "a program has the keys"),
    ],
)
def test_descriptions_of_no_network_are_refused(changes: dict[str, Any], error: str, path: Path) -> None:
    found = file.read(path)
    forge(path, json.dumps({**found.description, **changes}), found.rows)
    conftest.refused(path, error, read=packed.open)


@pytest.mark.parametrize(
    ("part", "key", "value", "error"),
    [
        ("dataset", "mean", [0.5, 0.4822, 0.4465], r"its pictures have mean (0.5, 0.4822, 0.4465) and std (0.247, "),
        ("dataset", "std", [0.247, 0.2435, 2.0], "std (0.247, 0.2435, 2.0), those of its program"),
        ("arch_args", "classes", 9, "its network has 9 classes, its pictures 10, and its answer 10 numbers"),
        ("arch_args", "classes", 11, "its network has 11 classes, its pictures 10, and its answer 10 numbers"),
        ("dataset", "classes", 11, "its network has 10 classes, its pictures 11, and its answer 10 numbers"),
    ],
)
def test_pictures_and_classes_are_those_of_the_program(part: str, key: str, value: Any, error: str, path: Path) -> None:
    found = file.read(path)
    made = found.description["made"]
    made[part][key] = value
    made["dataset"]["names"] = []
    forge(path, json.dumps(found.description), found.rows)
    conftest.refused(path, error, read=packed.open)


@pytest.mark.parametrize("key", ["bits", "made", "program"])
def test_descriptions_that_lack_something_are_refused(key: str, path: Path) -> None:
    found = file.read(path)
    del found.description[key]
    forge(path, json.dumps(found.description), found.rows)
    conftest.refused(path, "its description is not one of a packed network", read=packed.open)


@pytest.mark.parametrize("key", ["shift", "low", "picture", "epochs"])
def test_lists_in_lists_are_refused_however_deep(key: str, path: Path) -> None:
    """json reads to a depth near Python's recursion limit; later steps must not fail on a smaller depth."""
    found = file.read(path)
    held = next(held for held, name in places(found.description) if name == key)
    held[key] = "deep"
    before, after = json.dumps(found.description).split('"deep"')
    for depth in (100, *range(850, 1000), 5000):
        forge(path, before + "[" * depth + "]" * depth + after, found.rows)
        conftest.refused(path, read=packed.open)


NUMBERS = (0, -1, 2**31, 2**40, 1.5, 1e308)
STRINGS = ("", "relu", "Reduce", "max", "a\nb\x1b[2J", "inf", "test", "quantize", "x" * 5000)
OTHERS: tuple[Any, ...] = (None, True, [], {})


def changed(said: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return the same description with one change."""
    said = copy.deepcopy(said)
    operations = said["program"]["operations"]
    kind = draw.randrange(6)
    if kind == 0:
        operations.insert(draw.randrange(len(operations) + 1), copy.deepcopy(draw.choice(operations)))
    elif kind == 1:
        one, other = draw.sample(range(len(operations)), 2)
        operations[one], operations[other] = operations[other], operations[one]
    else:
        held, key = draw.choice(places(said if draw.random() < 0.2 else said["program"]))
        value = held[key]
        if kind == 2 and isinstance(held, dict):
            del held[key]
        elif kind == 3:
            held[key] = draw.choice(OTHERS)
        elif isinstance(value, str):
            held[key] = draw.choice(STRINGS)
        elif isinstance(value, list) and value:
            del value[draw.randrange(len(value))]
        else:
            held[key] = draw.choice(NUMBERS)
    return said


def native_executor() -> Callable[[Program], Executor] | None:
    """Return the native engine's class; None if it is unavailable."""
    try:
        compiler.engine()
    except compiler.Unavailable:
        return None
    return Native


def outcomes(path: Path, count: int, seed: int) -> dict[str, int]:
    """Count how often a change was refused, gave a program that ran (natively, too), or one too large to run here."""
    native = native_executor()
    found, draw, counts = file.read(path), random.Random(seed), {"refused": 0, "ran": 0, "large": 0}
    for number in range(count):
        forge(path, json.dumps(changed(found.description, draw)), found.rows)
        opened = opened_or_refused(path)
        if isinstance(opened, UserError):
            assert (opened.code, bool(opened.hint), str(opened).isprintable()) == (BAD_CHECKPOINT, True, True), number
            counts["refused"] += 1
            continue
        program = opened.program
        if sum(math.prod(value.shape) for value in program.values) > 10_000_000:
            counts["large"] += 1
            continue
        x = torch.from_numpy(np.random.default_rng(number).normal(size=(1, *program.picture)).astype(np.float32))
        expected = run(program, x)
        assert expected.shape == (1, *program.answer), number
        if native is not None:
            found_by_it = native(program)(x)
            assert not expected.isfinite().all() or torch.equal(found_by_it, expected), number
        counts["ran"] += 1
    return counts


def test_150_changed_descriptions_are_refused_or_run(path: Path) -> None:
    found = outcomes(path, 150, 0)
    assert min(found["refused"], found["ran"]) > 10, found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_2000_changed_descriptions_are_refused_or_run(seed: int, path: Path) -> None:
    found = outcomes(path, 500, seed)
    assert min(found["refused"], found["ran"]) > 40, found
