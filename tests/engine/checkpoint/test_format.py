"""Checkpoints say what they are, byte for byte the same each time, and are believed only if nothing is wrong with them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from engine.checkpoint import archive, format as checkpoint, provenance
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import UserError
from engine.system import files
from models.networks.nin import nin
from tests.conftest import refused
from tests.tools.equality import same

INFO = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)


def made() -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    return checkpoint.make(
        nin([8] * 8),
        "nin",
        {"classes": 10},
        INFO,
        {"accuracy": 12.5},
        [{"stage": "train"}],
        Origin(("prune.train",), 1),
    )


def test_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, content = tmp_path / "a.pth", made()
    checkpoint.save(path, content)
    assert same(checkpoint.load(path), content)
    assert content["best_acc"] == 12.5
    assert content["dataset"]["mean"] == [0.5] * 3
    assert content["provenance"]["parent"] is None
    assert capsys.readouterr().err == ""
    checkpoint.save(path, content)
    assert capsys.readouterr().err == f"replaced {path}\n"
    torch.load(path, weights_only=True)


def test_equal_content_makes_equal_bytes_under_any_name(tmp_path: Path) -> None:
    for name in ("a.pth", "another name.pt"):
        checkpoint.save(tmp_path / name, made())
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "another name.pt").read_bytes()


def test_provenance_names_the_parent_and_no_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parent = tmp_path / "models_save" / "nin.pth"
    archive.save(parent, {"x": 1})
    found = provenance.provenance(
        Origin(("python", "--model", str(parent), "--data", "/elsewhere/pictures"), 3, parent, files.sha256(parent))
    )
    assert found["command"] == "python --model models_save/nin.pth --data pictures"
    assert found["parent"] == "models_save/nin.pth"
    assert found["parent_sha256"] == files.sha256(parent)
    assert found["seed"] == 3
    assert "/home" not in provenance.provenance(Origin(("prune.train", "--save=/home/u/x.pth"), 1))["command"]


FOREIGN = {
    "png": (b"\x89PNG\r\n\x1a\n", "picture"),
    "pickle": (pickle.dumps([1, 2], protocol=2), ""),
    "zip": (b"PK\x03\x04 and nothing more", "damaged"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_is_named(kind: str, tmp_path: Path) -> None:
    content, word = FOREIGN[kind]
    (tmp_path / "a.pth").write_bytes(content)
    refused(tmp_path / "a.pth", word)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    refused(tmp_path / "a.pth", "no such file")
    refused(tmp_path, "not a regular file")


def test_every_bit_of_a_directory_of_members_is_checked(tmp_path: Path) -> None:
    path, content = tmp_path / "a.pth", {"state_dict": {"w": torch.randn(3, 2)}}
    whole = archive.to_bytes(content)
    path.write_bytes(whole)
    with path.open("r+b", buffering=0) as file:
        for place in range(8 * whole.index(b"PK\x01\x02"), 8 * len(whole)):
            os.pwrite(file.fileno(), bytes([whole[place // 8] ^ 1 << place % 8]), place // 8)
            try:
                found, _ = archive.load(path)
                assert same(found, content), f"bit {place} changed the content unnoticed"
            except UserError:
                pass
            os.pwrite(file.fileno(), whole[place // 8 :][:1], place // 8)


@pytest.mark.parametrize("wrapped", [True, False])
def test_files_of_the_originals_kind_load(wrapped: bool, tmp_path: Path) -> None:
    state = {"module.w": torch.randn(3, 2).double(), "n": torch.tensor(7)}
    torch.save({"best_acc": 80.5, "state_dict": state} if wrapped else state, tmp_path / "a.pth")
    found = checkpoint.load(tmp_path / "a.pth")
    assert set(found) == ({"best_acc", "state_dict"} if wrapped else {"state_dict"})
    assert torch.equal(found["state_dict"]["module.w"], state["module.w"].float())
    assert found["state_dict"]["n"] == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["state_dict"]["block3.bn.weight"].__setitem__(4, float("nan")), ["block3.bn.weight", "[4]", "not finite"]),
        (lambda c: c["state_dict"]["block3.bn.running_var"].fill_(-1), ["block3.bn.running_var", "negative"]),
        (lambda c: c["state_dict"].update(w=3), ["'w'", "not a tensor"]),
        (lambda c: c["state_dict"].update(w=torch.ones(2, dtype=torch.complex64)), ["w is not a dense"]),
        (lambda c: c["state_dict"].update(w=torch.ones(2, 2).to_sparse()), ["sparse_tensor", "dense"]),
        (lambda c: c.update(format_version=2), ["format version 2"]),
        (lambda c: c.update(format="other"), ["'other'"]),
        (lambda c: c.pop("cfg"), ["lacks cfg"]),
        (lambda c: c.pop("state_dict"), ["no state_dict"]),
    ],
)  # fmt: skip
def test_content_that_cannot_be_used_is_named(change, words: list[str], tmp_path: Path) -> None:
    content = made()
    change(content)
    archive.save(tmp_path / "a.pth", content)
    refused(tmp_path / "a.pth", *words)
