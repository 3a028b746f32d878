"""Intact files with impossible contents: each is refused with exit 3 and the name of the fault."""

from __future__ import annotations

import argparse
import collections
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from engine.checkpoint import archive, format as checkpoint, schema
from engine.checkpoint.format import Checkpoint
from engine.errors import BAD_CHECKPOINT, UserError
from models import legacy
from tests.conftest import refused
from tests.tools.contents import raw, typed
from tests.tools.forge import in_child, packed, rezipped, same_arrays, tiny

CFGS: dict[str, Callable[[list[int]], Any]] = {
    "10**9": lambda cfg: [10**9, *cfg[1:]],
    "zero": lambda cfg: [0, *cfg[1:]],
    "negative": lambda cfg: [-1, *cfg[1:]],
    "fraction": lambda cfg: [1.5, *cfg[1:]],
    "bool": lambda cfg: [True, *cfg[1:]],
    "text": lambda cfg: "2,2,2",
    "too short": lambda cfg: cfg[1:],
    "too long": lambda cfg: [*cfg, 8],
    "tensor": lambda cfg: torch.tensor(cfg),
    "nan": lambda cfg: [float("nan"), *cfg[1:]],
    "wide": lambda cfg: [65_536] * len(cfg),
    "other": lambda cfg: [cfg[0] + 1, *cfg[1:]],
}


@pytest.mark.parametrize("kind", CFGS)
def test_twelve_hostile_cfgs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused before a network of that size is allocated."""
    assert len(CFGS) == 12
    content = tiny("nin", (8,) * 8)
    content["cfg"] = CFGS[kind](content["cfg"])
    archive.save(tmp_path / "a.pth", content)
    built: list[str] = []
    nin = models.NETWORKS["nin"]
    monkeypatch.setitem(models.NETWORKS, "nin", lambda **k: built.append(torch.empty(0).device.type) or nin(**k))

    def restored() -> tuple[int, list[str]]:
        with pytest.raises(UserError) as fault:
            models.restore(checkpoint.load(tmp_path / "a.pth"))
        return fault.value.code, built

    code, devices = in_child(restored, memory=500 * 2**20)
    assert code == BAD_CHECKPOINT
    assert set(devices) <= {"meta"} or kind == "other"  # 'other' fits the number of weights, and fails at their shapes


KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sparse": lambda w: w.to_sparse(),
    "meta": lambda w: w.to("meta"),
    "quantized": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "complex": lambda w: w.to(torch.complex64),
    "bool": lambda w: w.bool(),
    "bfloat16": lambda w: w.bfloat16(),
    "float16": lambda w: w.half(),
    "float64": lambda w: w.double(),
    "int64": lambda w: w.long(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_tensors(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other float types are converted with a notice; any other type in place of a float is refused."""
    content, key = tiny(), "block2.conv.weight"
    was = content["state_dict"][key]
    content["state_dict"][key] = KINDS[kind](was)
    archive.save(tmp_path / "a.pth", content)
    if kind in ("bfloat16", "float16", "float64"):
        found = checkpoint.load(tmp_path / "a.pth")
        assert found.state_dict[key].dtype == torch.float32
        assert torch.equal(found.state_dict[key], KINDS[kind](was).float())
        assert capsys.readouterr().err == f"notice: {tmp_path}/a.pth: tensors read as float32: 1 of {kind}\n"
        models.restore(found)
    elif kind in ("int64", "bool"):  # it may be a counter or a mask; only the network knows that a float belongs there
        found = checkpoint.load(tmp_path / "a.pth")
        with pytest.raises(UserError, match=f"{key} is torch.{kind}, not torch.float32") as fault:
            models.restore(found)
        assert fault.value.code == BAD_CHECKPOINT
    else:
        refused(tmp_path / "a.pth")


KEYS: dict[str, tuple[Callable[[dict], Any], tuple[str, ...]]] = {
    "missing": (lambda s: s.pop("block2.bn.bias"), ("block2.bn.bias is missing",)),
    "extra": (lambda s: s.update(more=torch.ones(1)), ("more is unknown",)),
    "renamed": (
        lambda s: s.update(norm=s.pop("block2.bn.bias")),
        ("block2.bn.bias is missing", "norm is unknown"),
    ),
    "shape": (
        lambda s: s.update({"linear.bias": torch.ones(3)}),
        ("linear.bias has shape (3,), not (10,)",),
    ),
    "int": (
        lambda s: s.update({"linear.bias": torch.ones(10).long()}),
        ("linear.bias is torch.int64, not torch.float32",),
    ),
    "all": (lambda s: [s.update({f"net.{k}": s.pop(k)}) for k in list(s)], ("block1.conv.weight is missing", "more")),
}


@pytest.mark.parametrize("kind", KEYS)
def test_weights_of_another_network_are_named(kind: str) -> None:
    content = tiny()
    KEYS[kind][0](content["state_dict"])
    with pytest.raises(UserError) as fault:
        models.restore(typed(content))
    assert fault.value.code == BAD_CHECKPOINT
    for word in KEYS[kind][1]:
        assert word in str(fault.value)
    assert len(str(fault.value).split("; ")) <= 5


@pytest.mark.parametrize(
    ("arch", "cfg"),
    [
        ("nin", [8] * 8),
        ("nin_3x3", [8] * 8),
        ("nin_gc", [2, 4, 16, 32, 4, 64, 96, 8]),
        ("separable", [2, 4, 4, 4, 4, 4, 4, 8]),
        ("separable_wide", [2, 4, 4, 4, 4, 4, 4, 8]),
    ],
)
def test_the_network_that_weights_look_like_is_suggested(arch: str, cfg: list[int]) -> None:
    """Four of the five networks refuse the weights; the hint names the fifth."""
    state = models.build(arch, cfg).state_dict()
    content = {**tiny("slimming"), "cfg": cfg, "state_dict": state}
    for said in {"nin", "nin_3x3", "nin_gc", "separable", "separable_wide"} - {arch}:
        with pytest.raises(UserError) as fault:
            models.restore(typed({**content, "arch": said, "arch_args": {"classes": 10}}))
        if "do not fit" in str(fault.value):
            assert fault.value.hint == f"they look like weights of {arch}: give --arch {arch}"
    known = legacy.recognise(legacy.renamed(state))
    assert known is not None
    assert known[:2] == (arch, cfg)
    assert models.build(arch, cfg, **known[2]).state_dict().keys() == state.keys()


def test_a_prefix_counts_only_if_all_keys_have_it() -> None:
    state = {"conv.weight": 1, "bn.weight": 2}
    everywhere = {f"module.{key}": value for key, value in state.items()}
    assert legacy.unwrapped(everywhere) == state
    assert legacy.unwrapped(everywhere, set(everywhere)) == everywhere  # a child module has this name
    for prefix in (
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
    ):  # torch.compile, alone and with DataParallel
        assert legacy.unwrapped({f"{prefix}{key}": value for key, value in state.items()}) == state
    compiled = {f"_orig_mod.{key}": value for key, value in everywhere.items()}
    assert legacy.unwrapped(compiled, set(everywhere)) == everywhere
    assert legacy.unwrapped({}) == {}
    mixed = {"module.conv.weight": 1, "bn.weight": 2}
    assert legacy.unwrapped(mixed) == mixed


def test_a_whole_pickled_network_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(models.build("slimming"), tmp_path / "a.pth")
    fault = refused(tmp_path / "a.pth", "models.networks.slimming.Slimming")
    assert "torch.save(model.state_dict(), PATH)" in fault.hint
    assert "weights_only" not in fault.hint


ODD = {
    "np.float64": (np.float64(81.5), "multiarray.scalar"),
    "Namespace": (argparse.Namespace(lr=0.1), "argparse.Namespace"),
    "Path": (pathlib.PurePosixPath("a"), "pathlib.PurePosixPath"),
    "defaultdict": (collections.defaultdict(list, a=[1]), "collections.defaultdict"),
}


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("kind", ODD)
def test_values_of_other_libraries_are_named(kind: str, container: str, tmp_path: Path) -> None:
    value, name = ODD[kind]
    (tmp_path / "a.pth").write_bytes(packed({"state_dict": {"w": torch.ones(1)}, "best_acc": value}, container))
    assert "plain Python numbers" in refused(tmp_path / "a.pth", name).hint


def test_files_saved_without_checksums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An old file loads with a warning; the toolkit's files always have checksums, so a missing one means damage."""
    path, state = tmp_path / "a.pth", {"state_dict": tiny()["state_dict"]}
    try:
        torch.serialization.set_crc32_options(False)
        path.write_bytes(archive.to_bytes(state))
        ours = archive.to_bytes(tiny())
    finally:
        torch.serialization.set_crc32_options(True)
    assert same_arrays(checkpoint.load(path).state_dict, state["state_dict"])
    assert "this format has no checksums" in capsys.readouterr().err
    path.write_bytes(ours)
    refused(path, "lost its checksums")


def test_files_of_later_programs(tmp_path: Path) -> None:
    path, content = tmp_path / "a.pth", tiny()
    archive.save(path, {**content, "format_version": 4})
    assert "upgrade" in refused(path, "format version 4; this version reads 1 to 3").hint
    for odd in (0, -1, "1", 1.0, True, None, [1]):
        archive.save(path, {**content, "format_version": odd})
        refused(path, "its format version is not 1 to 3")
    archive.save(path, {**content, "notes": {"by": [1, 2.5, None, "x"]}, "arch_hash": "0" * 64})
    assert raw(path)["notes"] == {"by": [1, 2.5, None, "x"]}
    found = checkpoint.load(path)
    assert isinstance(found, Checkpoint)
    models.restore(found)


def nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + closing * (depth - 1)


@pytest.mark.parametrize("body", [nested(b"]", b"a", 5000), b"]" + b"\x85" * 5000], ids=["lists", "tuples"])
def test_5000_values_in_each_other(body: bytes, tmp_path: Path) -> None:
    raw = rezipped(archive.to_bytes(tiny()), lambda name, data: b"\x80\x02" + body + b"." if "pkl" in name else data)
    (tmp_path / "a.pth").write_bytes(raw)
    assert in_child(lambda: bool(refused(tmp_path / "a.pth")), memory=500 * 2**20)


def endless(kind: str) -> Any:
    value: list = [1]
    if kind == "itself":
        value.append(value)
    elif kind == "number":
        return 10**20_000
    for _ in range({"deep": 100, "laughs": 60}.get(kind, 0)):
        value = [value] if kind == "deep" else [value, value]  # 2^60 items in 60 lines
    return value


@pytest.mark.parametrize("kind", ["deep", "itself", "laughs", "number"])
def test_values_without_end_in_a_file_that_is_well_otherwise(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(archive.to_bytes({**tiny(), "notes": endless(kind)}))
    assert in_child(lambda: bool(refused(tmp_path / "a.pth")), memory=500 * 2**20)


FIELD_FAULTS: list[tuple[Callable[[dict], Any], str]] = [
    *((lambda c, key=key: c.pop(key), f"lacks {key}") for key in schema.FIELDS),
    (lambda c: c["dataset"].pop("label"), "its dataset is not described"),
    (lambda c: c["dataset"].update(std=[1.0, 0.0, 1.0]), "no mean and std"),
    (lambda c: c["dataset"].update(image_size=5000), "image size 5000 is out of range"),
    (lambda c: c["arch_args"].pop("classes"), "lack the number of classes"),
    (lambda c: c.update(metrics=[]), "arch or metrics are malformed"),
    (lambda c: c.update(arch=None), "its arch"),
    (lambda c: c.update(best_acc=float("nan")), "its best_acc is not a finite float"),
    (lambda c: c["provenance"].pop("parent"), "its provenance"),
    (lambda c: c["provenance"].update(parent_sha256=3), "its provenance"),
    (lambda c: c["transforms"].append({"stage": "prune", "percent": 0.5, "base": 8}), "lacks its settings"),
    (lambda c: c["transforms"].append({"stage": "train", "epochs": 1, "val": "x"}), "stage train has invalid settings"),
    (
        lambda c: c["transforms"].append({"stage": "train", "epochs": 1, "pruned": [{"base": 8}]}),
        "stage train has invalid settings",
    ),
    (lambda c: c["dataset"].update(names=["only one"]), "does not name each of its classes"),
    (lambda c: c["dataset"].update(flip="no"), ""),
    (lambda c: c["transforms"].append({"stage": "quantize"}), "lacks its settings"),
    (lambda c: c["transforms"].append("merge"), "not a list of stages"),
]


@pytest.mark.parametrize("number", range(len(FIELD_FAULTS)))
def test_fields_of_another_form_are_named(number: int, tmp_path: Path) -> None:
    change, words = FIELD_FAULTS[number]
    content = tiny()
    change(content)
    archive.save(tmp_path / "a.pth", content)
    refused(tmp_path / "a.pth", words)


def test_ours_are_files_of_the_originals_kind(tmp_path: Path) -> None:
    """The original repository reads checkpoint['state_dict'], ['cfg'] and ['best_acc'] in any torch: forward compatibility."""
    checkpoint.save(tmp_path / "a.pth", typed(tiny()))
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in found["state_dict"].values())
    assert all(type(width) is int for width in found["cfg"])
    assert type(found["best_acc"]) is float


def test_every_field_is_asked_for() -> None:
    assert set(tiny()) == {*schema.FIELDS, "format", "format_version", "best_acc", "state_dict"}
