"""--weights: errors name the fault, and nothing is written."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.refusals import snapshot
from tests.tools.residual import residual
from tests.tools.weights import ARCH, DECLARED, DIGITS, OWN, network, written


@pytest.mark.parametrize(
    ("module", "more", "says"),
    [
        ("prune.normal_regular", (), "digits asks for 10"),
        ("prune.train", ("--evaluate",), "digits asks for 10"),
        ("quant.ptq", (), "digits asks for 10"),
        ("bn_merge.__main__", (), "digits asks for 10"),
        ("scripts.summary", ("--classes", "12"), "--classes asks for 12"),
        ("scripts.summary", ("--sensitivity",), "digits asks for 10"),
    ],
)
def test_an_untrained_head_is_refused(module: str, more: tuple[str, ...], says: str, command, workplace: Path) -> None:
    written("own.pth", network(7).state_dict())
    before = snapshot(workplace)
    done = command(module, *OWN, *DIGITS, *more)
    assert_refused(done, 2, f"own.pth has 7 classes, but {says}")
    assert f"train first: python -m prune.train --arch {ARCH} --weights own.pth" in done.err
    assert snapshot(workplace) == before


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        ("prune.train", ("--refine",), "--weights contradicts --refine"),
        ("prune.train", ("--from_scratch", "a.pth"), "--weights contradicts --refine and --from_scratch"),
        ("prune.train", ("--evaluate", "a.pth"), "--weights contradicts --evaluate F"),
        ("prune.normal_regular", ("--model", "a.pth"), "--weights contradicts --model"),
        ("prune.gc", ("--model", "a.pth"), "--weights contradicts --model"),
        ("quant.wqaq", ("--refine",), "--weights contradicts --refine"),
        ("quant.wbwtab", ("--refine", "a.pth"), "--weights contradicts --refine"),
        ("quant.ptq", ("--model", "a.pth"), "--weights contradicts --model"),
        ("bn_merge.__main__", ("--model", "a.pth"), "--weights contradicts --model"),
        ("bn_merge.compare", ("a.pth", "b.pth"), "--weights contradicts the unmerged file"),
        ("scripts.summary", ("a.pth",), "--weights contradicts a file"),
        ("prune.train", ("--arch", ARCH), "does not name its pictures, and data holds no CIFAR-10"),
    ],
)
def test_two_files_to_start_from(module: str, line: tuple[str, ...], words: str, command, workplace: Path) -> None:
    written("own.pth", {"a": torch.zeros(1)})
    assert_refused(command(module, "--weights", "own.pth", *line), 2, words)
    assert [path.name for path in workplace.iterdir()] == ["own.pth"]


def test_keys_that_fit_nowhere(command, workplace: Path) -> None:
    own = network().state_dict()
    written("own.pth", {f"backbone.{key}": value for key, value in own.items()})
    done = command("prune.train", *OWN, *SMALL)
    assert_refused(done, 3, f"own.pth: {len(own)} of its {len(own)} keys do not fit {ARCH}")
    assert "backbone.stem.0.weight (nearest: stem.0.weight)" in done.err
    assert done.err.count("nearest: ") == 5
    assert f"; and {len(own) - 5} more" in done.err
    wider = {key: torch.zeros(99, *value.shape[1:]) if key == "c1.weight" else value for key, value in own.items()}
    written("own.pth", wider)
    done = command("prune.train", *OWN, *SMALL)
    assert_refused(
        done,
        3,
        f"1 of its {len(own)} tensors have another shape than in {ARCH}",
        "c1.weight has shape (99, 16, 3, 3), not (24, 16,",
    )
    written("own.pth", {key: value for key, value in own.items() if not key.startswith("n2")})
    assert_refused(command("prune.train", *OWN, *SMALL), 3, f"it lacks 5 of the {len(own)} keys of {ARCH}: n2.weight,")
    written("own.pth", models.build("nin").state_dict())
    done = command("prune.train", *OWN, *SMALL)
    assert done.err.splitlines()[-1] == "hint: they look like weights of nin: give --arch nin"
    assert [path.name for path in workplace.iterdir()] == ["own.pth"]


def test_files_that_are_no_state_dict(command, workplace: Path) -> None:
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "own.pth: no such file")
    written("own.pth", network().state_dict())
    whole = Path("own.pth").read_bytes()
    Path("own.pth").write_bytes(whole[: len(whole) // 2])
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "own.pth")
    torch.save({"epoch": 3}, "own.pth")
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "no state_dict in it")
    torch.save(network(), "own.pth")
    assert_refused(command("prune.train", *OWN, *SMALL), 3, "own.pth: holds", "not just tensors and plain values")
    assert [path.name for path in workplace.iterdir()] == ["own.pth"]


def test_a_checkpoint_describes_itself(refined) -> None:
    done = refined("prune.train", "--weights", "models_save/nin_refine.pth", *SMALL)
    assert_refused(done, 2, "models_save/nin_refine.pth is a checkpoint, which describes itself")


def test_safetensors_are_refused_by_name_where_their_library_is_not(command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}" + bytes(200_000))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    done = command("prune.train", "--arch", ARCH, "--weights", "own.safetensors", *SMALL)
    assert_refused(done, 2, "own.safetensors: safetensors is not installed")
    own = network().state_dict()
    reader = SimpleNamespace(load=lambda content: own if content.startswith(b"\2") else {}[content])
    monkeypatch.setitem(sys.modules, "safetensors", SimpleNamespace(torch=reader))
    monkeypatch.setitem(sys.modules, "safetensors.torch", reader)
    done = command("prune.train", "--evaluate", "--arch", ARCH, "--weights", "own.safetensors", *DIGITS)
    assert done.code == 0, done.err
    Path("own.safetensors").write_bytes(b"damaged")
    assert_refused(command("prune.train", "--arch", ARCH, "--weights", "own.safetensors", *SMALL), 3, "damaged")


def test_the_widths_of_ones_own_network_may_be_said(command) -> None:
    written("own.pth", residual([6, 4, 8]).state_dict())
    own = ("--arch", DECLARED, "--weights", "own.pth")
    told = command("scripts.summary", *own, "--cfg", "6,4,8")
    assert told.code == 0
    assert command("scripts.summary", *own).out == told.out  # the file's shapes give the same answer
    assert_refused(command("prune.normal_regular", "--cfg", NARROW), 2, "--cfg")
