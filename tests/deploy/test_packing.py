"""Packing a checkpoint: its normalisation, its history, its float weights, and the size of the packed file."""

from __future__ import annotations

import copy
from functools import cache
from math import prod
from pathlib import Path

import pytest
import torch
from torch import nn

from bn_merge.merge import merge
from deploy import packed
from deploy.listing import layers
from deploy.operations.base import Codes
from deploy.packed import Packed
from deploy.packing import float_network, packed_of, rounded_ends, say_rounded
from deploy.program import Program
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import History, Merge, Quantize, Train
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import USAGE, UserError
from engine.system import files
from models import forms
from models.graph.normal import NormalForm
from quant import restore
from quant.placement import meet
from quant.prepare import prepare
from quant.spec import QuantSpec, uniform
from tests.deploy.quantized import ENDS, SIDE, SPECS, pictures, trained
from tests.tools.original import Original, prefixed

MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
INFO = DataInfo("digits", "digits", 10, SIDE, MEAN, STD)

KINDS = {**SPECS, **ENDS, "w2a2": uniform("dorefa", 2, 2)}
WIDE = 32


@cache
def network(width: int) -> NormalForm:
    torch.manual_seed(0)
    return forms.build("nin", [width] * 8, side=SIDE)


@cache
def quantized(kind: str, width: int) -> NormalForm:
    return trained(network(width), KINDS[kind], MEAN, STD)


def saved(path: Path, kind: str, width: int = 8, is_merged: bool = False) -> NormalForm:
    """Write the file of a quantized network, merged or not, and return the network."""
    form, model, spec = network(width), quantized(kind, width), KINDS[kind]
    model.cfg = form.cfg
    stages: History = (
        Train(epochs=1),
        *([Quantize(spec=meet(spec, form, (), MEAN, STD).to_dict())] if spec != QuantSpec() else []),
    )
    if is_merged:
        model, stages = merge(model), (*stages, Merge())
        model.cfg = form.cfg
    made = checkpoint.make(
        model, "nin", {"classes": 10, **form.arch_args}, INFO, Metrics(50.0), stages, Origin(("a",), 1)
    )
    checkpoint.save(path, made)
    return model


def made(path: Path, low_ends: bool = True, **said: tuple[float, ...]) -> Packed:
    return packed_of(restore.open(path), said.get("mean"), said.get("std"), low_ends, ("deploy.pack",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    saved(tmp_path / "a.pth", "w4a4")
    return tmp_path / "a.pth"


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Write a file of the original repository, which does not describe its pictures."""
    torch.manual_seed(0)
    torch.save({"net": prefixed(Original("tnn_bin").state_dict()), "acc": 80.0}, tmp_path / "original.pth")
    return tmp_path / "original.pth"


def test_a_packed_network_is_described_by_its_file(path: Path) -> None:
    held = made(path)
    assert (held.made.arch, held.made.cfg, held.made.state_dict, held.made.metrics.accuracy) == ("nin", [8] * 8, {}, 50)
    assert [type(stage).__name__ for stage in held.made.history] == ["Train", "Quantize", "Merge"]
    assert (held.program.mean, held.program.std) == (MEAN, STD) == (held.made.dataset.mean, held.made.dataset.std)
    told = held.made.provenance
    assert (told.command, told.parent, told.parent_sha256) == ("deploy.pack", "a.pth", files.sha256(path))


def test_another_normalisation_is_told_on(path: Path) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    held = made(path, mean=mean, std=std)
    assert (held.program.mean, held.program.std) == (mean, std) == (held.made.dataset.mean, held.made.dataset.std)
    assert made(path, std=std).program.mean == MEAN


def test_bytes_of_training_have_one_normalisation(tmp_path: Path) -> None:
    saved(tmp_path / "a.pth", "wbab ends")
    assert made(tmp_path / "a.pth", mean=MEAN, std=STD).program.mean == MEAN
    with pytest.raises(
        UserError, match=r"trained on bytes of pictures with --mean 0\.5,0\.4,0\.3 --std 0\.3,0\.2,0\.25"
    ):
        made(tmp_path / "a.pth", mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("kind", "kept", "low_ends", "names"),
    [
        ("wbab bacp", (), True, ["block1.conv", "block9.conv"]), ("wbab bacp", (), False, []), ("wbab ends", (), True, []),
        ("wbab ends", ("block1.conv",), True, ["block1.conv"]), ("wbab ends", ("block5.conv",), True, []),
        ("w4a4", (), True, ["block1.conv", "block9.conv"]), ("lsq", (), True, []), ("float", (), True, []),
        ("int8", (), True, ["block1.conv"]), ("int8", (), False, []), ("int8 ends", (), True, []),  # reads the picture
    ],
)  # fmt: skip
def test_rounded_ends_are_named(
    kind: str,
    kept: tuple[str, ...],
    low_ends: bool,
    names: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    form = copy.deepcopy(network(8))
    spec = meet(KINDS[kind], form, kept, MEAN, STD)
    model = prepare(form, spec) if kind != "float" else form
    model.train()(pictures())  # ranges of inputs
    stages = (Quantize(spec=spec.to_dict()),) if kind != "float" else ()
    file = checkpoint.make(
        model.eval(), "nin", {"classes": 10, **form.arch_args}, INFO, Metrics(50.0), stages, Origin(("a",), 1)
    )
    checkpoint.save(tmp_path / "a.pth", file)
    held = made(tmp_path / "a.pth", low_ends)
    assert rounded_ends(held) == names
    say_rounded(held)
    said = capsys.readouterr().err
    assert said.count("notice") == bool(names)
    assert (", ".join(names) in said, "read signs" in said) == (True, bool(names) and kind.startswith("wbab"))


def refused(path: Path, **said: tuple[float, ...]) -> UserError:
    with pytest.raises(UserError) as fault:
        made(path, **said)
    assert (fault.value.code, str(path) in str(fault.value)) == (USAGE, True)
    return fault.value


@pytest.mark.parametrize("said", [{}, {"mean": MEAN}, {"std": STD}], ids=str)
def test_a_file_of_the_originals_needs_mean_and_std(said: dict, original: Path) -> None:
    fault = refused(original, **said)
    assert "does not hold the mean and std of its pictures" in str(fault)
    for flag in ("--mean 0.4914,0.4822,0.4465", "--std 0.2023,0.1994,0.201"):
        assert flag in fault.hint


def test_with_mean_and_std_a_file_of_the_originals_is_packed(original: Path) -> None:
    held = made(original, mean=MEAN, std=STD)
    assert (held.program.mean, held.program.std, held.program.answer) == (MEAN, STD, (4,))


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ({"mean": (0.5,), "std": (0.5,)}, "1 and 1"),
        ({"mean": (0.5,)}, "1 and 3"),
        ({"std": (0.5,) * 4}, "3 and 4"),
        ({"mean": (0.5,) * 2, "std": (0.5,) * 2}, "2 and 2"),
    ],
    ids=str,
)
def test_numbers_of_other_channels_are_refused(said: dict, counts: str, path: Path) -> None:
    assert f"--mean and --std have {counts} numbers, but the network reads 3 channels" in str(refused(path, **said))


@pytest.mark.parametrize("kind", ["w4a4", "lsq", "int8", "wbab bacp"])
def test_the_float_network_has_the_weights_that_were_trained(kind: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "a.pth", kind)
    found, latent = float_network(restore.open(tmp_path / "a.pth"), None), model.state_dict()
    own = found.state_dict()
    assert {*own} <= {*latent}
    assert all(torch.equal(own[name], latent[name]) for name in own)
    assert {type(m) for m in found.modules() if isinstance(m, (nn.Conv2d, nn.Linear))} == {nn.Conv2d}
    assert not found.training


def test_the_float_network_of_a_float_file_gives_its_answers(tmp_path: Path) -> None:
    model, x = saved(tmp_path / "a.pth", "float"), pictures()
    with torch.no_grad():
        assert torch.equal(float_network(restore.open(tmp_path / "a.pth"), None)(x), model(x))


def test_the_float_network_of_a_merged_file_has_its_widths(tmp_path: Path) -> None:
    """A merged file has no float weights; speed does not depend on them."""
    saved(tmp_path / "a.pth", "w4a4", is_merged=True)
    found = float_network(restore.open(tmp_path / "a.pth"), None)
    shapes = {name: held.shape for name, held in found.state_dict().items()}
    assert shapes == {name: held.shape for name, held in network(8).state_dict().items()}
    with torch.no_grad():
        assert found(pictures()).std() > 0


def of_codes(program: Program, levels: int) -> int:
    """Return the number of weights in codes of `levels` levels."""
    held = [operation.matrix.weight for operation, _ in layers(program)]
    return sum(prod(weight.shape) for weight in held if isinstance(weight, Codes) and weight.levels == levels)


@pytest.mark.parametrize(
    "kind",
    [
        *("float", "w8a8", "w4a4", "w2a2", "int8 symmetric", "wta8", "wbab bacp"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("lsq", "int8", "wtab")),
    ],
)
def test_the_file_is_as_small_as_the_counted_bits(kind: str, tmp_path: Path) -> None:
    """The file may add 4 KiB of description and 200 bytes a layer. Ternary weights count as 2 bits and take 1.6."""
    saved(tmp_path / "a.pth", kind, WIDE)
    wide, small = (made(tmp_path / "a.pth", low_ends) for low_ends in (False, True))
    counted = wide.bits - 0.4 * of_codes(wide.program, 3)
    words = 4096 + 200 * len(layers(wide.program))
    size = packed.save(wide, tmp_path / "wide")
    assert counted / 8 < size <= 1.02 * counted / 8 + words
    assert small.bits == wide.bits
    ends = of_codes(small.program, 256) - of_codes(wide.program, 256)  # float weights of 32 bits, now of 8
    assert (ends > 0) == (kind in ("w8a8", "w4a4", "w2a2", "wta8", "wtab", "wbab bacp"))
    assert packed.save(small, tmp_path / "small") <= 1.02 * (counted / 8 - 3 * ends) + words


@pytest.mark.parametrize(
    ("wide", "narrow", "bits"),
    [("w8a8", "w4a4", 4), ("w4a4", "w2a2", 2), ("w2a2", "wta8", 0.4), ("wtab", "wbab bacp", 0.6)],
)
def test_weights_of_fewer_bits_take_fewer_bytes(wide: str, narrow: str, bits: float, tmp_path: Path) -> None:
    """The files differ by the bits saved in weights between the first and last layers, and by nothing else."""
    sizes = []
    for kind in (wide, narrow):
        saved(tmp_path / f"{kind}.pth", kind, WIDE)
        sizes.append(packed.save(made(tmp_path / f"{kind}.pth"), tmp_path / "small"))
    ends = WIDE * (3 * 5 * 5 + 10)
    weights = sum(prod(m.weight.shape) for m in network(WIDE).modules() if isinstance(m, nn.Conv2d)) - ends
    assert sizes[0] - sizes[1] == pytest.approx(weights * bits / 8, abs=300)
