"""24 forms of the original repository's files: each loads, computes the same as its network, and works with a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from engine.checkpoint import format as checkpoint
from models.legacy import adopt
from tests.conftest import refused
from tests.tools.forge import packed
from tests.tools.networks import for_side
from tests.tools.original import SMALL, Original, prefixed, without_counters

ACCURACY = 81.5
WRAPPED: dict[str, Callable[[dict], Any]] = {
    "bare": lambda state: state,
    "accuracy": lambda state: {"best_acc": ACCURACY, "state_dict": state},
    "cfg": lambda state: {"cfg": SMALL, "state_dict": state},
    "both": lambda state: {"cfg": SMALL, "best_acc": ACCURACY, "state_dict": state},
}
GROUPED = [2, 4, 16, 32, 4, 64, 96, 8]
VARIANTS: dict[str, tuple[str, str, Callable[[dict], Any]]] = {
    f"{wrap} {container}{' module.' if prefix else ''}": (
        "tnn_bin",
        container,
        lambda state, wrap=wrap, prefix=prefix: WRAPPED[wrap](prefixed(state) if prefix else state),
    )
    for wrap in WRAPPED
    for container in ("zip", "legacy")
    for prefix in (False, True)
} | {
    "dorefa zip": ("dorefa", "zip", WRAPPED["both"]),
    "dorefa legacy module.": ("dorefa", "legacy", lambda state: WRAPPED["accuracy"](prefixed(state))),
    "cuda zip": ("tnn_bin", "cuda zip", WRAPPED["both"]),
    "cuda legacy": ("tnn_bin", "cuda legacy", lambda state: WRAPPED["both"](prefixed(state))),
    "no counters": ("tnn_bin", "legacy", lambda state: WRAPPED["accuracy"](without_counters(state))),
    "tensor accuracy, tuple cfg": (
        "tnn_bin", "legacy", lambda state: {"cfg": tuple(SMALL), "best_acc": torch.tensor(ACCURACY), "state_dict": state},
    ),
    "cfg of tensors": (
        "tnn_bin", "legacy", lambda state: {"cfg": [torch.tensor(w) for w in SMALL], "best_acc": ACCURACY, "state_dict": state},
    ),
    "grouped, tensor cfg": ("nin_gc", "legacy", lambda state: {"cfg": torch.tensor(GROUPED), "state_dict": state}),
}  # fmt: skip


def originals_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a network's keys to the original's: first and last convolution bare, pools at 4 and 8."""
    place = {1: 0, 2: 2, 3: 3, 4: 5, 5: 6, 6: 7, 7: 9, 8: 10, 9: 11}
    renamed = {}
    for key, value in state.items():
        block, part, rest = key.split(".", 2)
        number = int(block.removeprefix("block"))
        bare = number in (1, 9)
        where = place[number] + (bare and part == "bn")
        renamed[f"tnn_bin.{where}.{rest}" if bare else f"tnn_bin.{where}.{part}.{rest}"] = value
    return renamed


def made(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a network and the state_dict that the original repository would save for it."""
    torch.manual_seed(0)
    if kind != "nin_gc":
        network: nn.Module = Original(kind)
        return network.eval(), network.state_dict()
    network = models.build("nin_gc", GROUPED, 4)
    network.train()(torch.randn(8, 3, 16, 16))
    return network.eval(), originals_names(network.state_dict())


@pytest.mark.parametrize("name", VARIANTS)
def test_24_variants(
    name: str, command, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(VARIANTS) == 24
    kind, container, wrap = VARIANTS[name]
    network, state = made(kind)
    with monkeypatch.context() as patch:
        if container.startswith("cuda"):  # the tags of GPU storages
            patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        raw = packed(wrap(state), container.removeprefix("cuda "))
    assert (b"cuda:0" in raw) == container.startswith("cuda")
    path = workplace / "original.pth"
    path.write_bytes(raw)

    content = adopt(checkpoint.load(path), path)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == (2 if "legacy" in container else 1)  # each is printed once
    assert ("re-save with: python -m scripts.convert" in notes[0]) == ("legacy" in container)
    assert f"read as {'nin_gc' if kind == 'nin_gc' else 'nin'} " in notes[-1]
    assert content.metrics.accuracy == (ACCURACY if "best_acc" in wrap(state) else 0)
    x = 10 * torch.randn(3, 3, 16, 16)
    expected = network(x)
    assert not torch.equal(expected[0], expected[1])
    assert torch.equal(models.restore(for_side(content, 16)).eval()(x), expected)

    result = command("scripts.summary", path, "--image_size", "16")
    assert result.code == 0
    assert "block9.conv" in result.out
    result = command("scripts.convert", path, workplace / "new.pth")
    assert (result.code, result.path) == (0, str(workplace / "new.pth"))
    capsys.readouterr()
    again = checkpoint.load(workplace / "new.pth")
    assert capsys.readouterr().err == ""
    assert again.cfg == content.cfg
    assert torch.equal(models.restore(for_side(again, 16)).eval()(x), expected)


ODD_CFGS = {
    "fractions": [12.5, *SMALL[1:]],
    "text": ["12", *map(str, SMALL[1:])],
    "flags": [True, *SMALL[1:]],
    "endless": torch.ones(1).expand(10**12),
    "another": [13, *SMALL[1:]],
    "number": 7,
}


@pytest.mark.parametrize("kind", ODD_CFGS)
def test_odd_cfgs_of_old_files_are_refused(kind: str, command, workplace: Path) -> None:
    torch.save({"cfg": ODD_CFGS[kind], "state_dict": made("tnn_bin")[1]}, workplace / "a.pth")
    result = command("scripts.summary", workplace / "a.pth")
    assert result.code == 3
    assert "cfg" in result.err or "original repository's format" in result.err


@pytest.mark.parametrize("accuracy", [float("nan"), -1.0, 101.0, "80 %", [80.0], torch.ones(2)])
def test_odd_accuracies_of_old_files_are_refused(accuracy: Any, command, workplace: Path) -> None:
    torch.save({"best_acc": accuracy, "state_dict": made("tnn_bin")[1]}, workplace / "a.pth")
    for line in (("scripts.summary", "a.pth"), ("scripts.convert", "a.pth", "b.pth")):
        assert command(*line).code == 3
    assert not (workplace / "b.pth").exists()


def test_two_keys_for_one_tensor_are_refused(command, workplace: Path) -> None:
    state = made("tnn_bin")[1]
    torch.save({**state, "block1.conv.weight": state["tnn_bin.0.weight"]}, workplace / "a.pth")
    result = command("scripts.summary", workplace / "a.pth")
    assert result.code == 3
    assert "mean the same tensor" in result.err


@pytest.mark.parametrize("key", checkpoint.WRAPPERS)
def test_the_weights_lie_where_other_programs_put_them(key: str, workplace: Path) -> None:
    network, state = made("tnn_bin")
    compiled = {f"module._orig_mod.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, key: compiled, "optimizer": {"lr": 0.1}, "network" * (key == "net"): "nin"}, "a.pth")
    content = checkpoint.load(Path("a.pth"))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(models.restore(for_side(adopt(content, "a.pth"), 16)).eval()(x), network(x))


def test_two_entries_that_may_be_the_weights_are_refused_by_name(workplace: Path) -> None:
    state = made("tnn_bin")[1]
    torch.save({"net": state, "state_dict": state}, "a.pth")
    assert "only the right one" in refused(Path("a.pth"), "its weights could be any of state_dict and net").hint
    torch.save({"model": {"width": 3}, "net": {}}, "a.pth")
    refused(Path("a.pth"), "no state_dict in it")
