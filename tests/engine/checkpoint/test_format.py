"""Checkpoints describe themselves, have the same bytes each time, and are accepted only if nothing is wrong with them."""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.checkpoint import archive, format as checkpoint, provenance
from engine.checkpoint.format import Checkpoint, Foreign, Metrics
from engine.checkpoint.history import Train
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import UserError
from engine.system import files
from tests.conftest import refused
from tests.tools.contents import raw, typed
from tests.tools.equality import same
from tests.tools.networks import form

INFO = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)


def made() -> Checkpoint:
    torch.manual_seed(0)
    return checkpoint.make(
        form("nin", [8] * 8),
        "nin",
        {"classes": 10},
        INFO,
        Metrics(12.5),
        (Train(),),
        Origin(("prune.train",), 1),
    )


def test_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, content = tmp_path / "a.pth", made()
    checkpoint.save(path, content)
    again = checkpoint.load(path)
    assert isinstance(again, Checkpoint)
    assert same(again.to_dict(), content.to_dict())
    assert (again.dataset, again.metrics, again.history) == (content.dataset, content.metrics, content.history)
    on_disk = raw(path)
    assert same(on_disk, content.to_dict())
    assert on_disk["best_acc"] == 12.5
    assert on_disk["dataset"]["mean"] == [0.5] * 3
    assert on_disk["provenance"]["parent"] is None
    assert capsys.readouterr().err == ""
    checkpoint.save(path, content)
    assert capsys.readouterr().err == f"replaced {path}\n"
    torch.load(path, weights_only=True)


def test_what_is_said_of_a_file_is_of_the_bytes_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are read once: if the file is replaced meanwhile, hash and weights still belong to the same file."""
    path, other = tmp_path / "a.pth", archive.to_bytes({"w": torch.zeros(3)})
    checkpoint.save(path, made())
    digest, size, reads, read = files.sha256(path), path.stat().st_size, [], Path.read_bytes

    def replaced(self: Path) -> bytes:
        reads.append(self)
        content = read(self)
        self.write_bytes(other)
        return content

    monkeypatch.setattr(Path, "read_bytes", replaced)
    found = checkpoint.load(path)
    assert reads == [path]
    assert (found.sha256, found.checksums) == (digest, True)
    assert same(found.state_dict, made().state_dict)
    loaded = archive.load(path)
    assert reads == [path, path]
    assert (loaded.sha256, loaded.size) == (hashlib.sha256(other).hexdigest(), len(other)) != (digest, size)


@pytest.mark.parametrize("missing", ["flip", "pad", "names"])
def test_what_older_files_do_not_say_of_their_pictures_stays_unsaid(missing: str, tmp_path: Path) -> None:
    content = made().to_dict()
    del content["dataset"][missing]
    again = typed(content)
    checkpoint.save(tmp_path / "a.pth", again)
    assert checkpoint.load(tmp_path / "a.pth").dataset == again.dataset
    assert (again.dataset.flip is None) == (missing == "flip")


def test_what_is_asked_of_pictures_is_written_where_it_is_not_their_class(tmp_path: Path) -> None:
    """A classifier's file is the same as before other tasks existed."""
    content = made().to_dict()
    assert "task" not in content["dataset"]
    assert typed(content).dataset.task == "classification"
    detects = replace(made(), dataset=replace(made().dataset, task="detection"))
    checkpoint.save(tmp_path / "a.pth", detects)
    assert checkpoint.load(tmp_path / "a.pth").dataset == detects.dataset
    with pytest.raises(UserError, match="'counting', which is not a known task") as fault:
        checkpoint.save(tmp_path / "b.pth", replace(made(), dataset=replace(made().dataset, task="counting")))
    assert fault.value.code == 3


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
    assert found.command == "python --model models_save/nin.pth --data pictures"
    assert found.parent == "models_save/nin.pth"
    assert found.parent_sha256 == files.sha256(parent)
    assert found.seed == 3
    assert "/home" not in provenance.provenance(Origin(("prune.train", "--save=/home/u/x.pth"), 1)).command


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
                found = archive.load(path).value
                assert same(found, content), f"bit {place} changed the content unnoticed"
            except UserError:
                pass
            os.pwrite(file.fileno(), whole[place // 8 :][:1], place // 8)


@pytest.mark.parametrize("wrapped", [True, False])
def test_files_of_the_originals_kind_load(wrapped: bool, tmp_path: Path) -> None:
    state = {"module.w": torch.randn(3, 2).double(), "n": torch.tensor(7)}
    torch.save({"best_acc": 80.5, "state_dict": state} if wrapped else state, tmp_path / "a.pth")
    found = checkpoint.load(tmp_path / "a.pth")
    assert isinstance(found, Foreign)
    assert (found.cfg, found.best_acc) == (None, 80.5 if wrapped else None)
    assert set(found.state_dict) == set(state)
    assert torch.equal(found.state_dict["module.w"], state["module.w"].float())
    assert found.state_dict["n"] == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["state_dict"]["block3.bn.weight"].__setitem__(4, float("nan")), ["block3.bn.weight", "[4]", "not finite"]),
        (lambda c: c["state_dict"]["block3.bn.running_var"].fill_(-1), ["block3.bn.running_var", "negative"]),
        (lambda c: c["state_dict"].update(w=3), ["'w'", "not a tensor"]),
        (lambda c: c["state_dict"].update(w=torch.ones(2, dtype=torch.complex64)), ["w is not a dense"]),
        (lambda c: c["state_dict"].update(w=torch.ones(2, 2).to_sparse()), ["sparse_tensor", "dense"]),
        (lambda c: c.update(format_version=4), ["format version 4"]),
        (lambda c: c["dataset"].update(crop="round") or c.update(format_version=3), ["how pictures are cut"]),
        (lambda c: c["dataset"].update(crop=["imagenet"]) or c.update(format_version=3), ["how pictures are cut"]),
        (lambda c: c["dataset"].update(crop="imagenet"), ["how pictures are cut"]),
        (lambda c: c["dataset"].update(crop="imagenet") or c.update(format_version=2), ["how pictures are cut"]),
        (lambda c: c["dataset"].update(mean=[0.5], std=[0.5]), ["mean and std of three channels"]),
        (lambda c: c["dataset"].update(mean=[0.5]) or c.update(format_version=2), ["of three channels or one"]),
        (lambda c: c["dataset"].update(mean=[0.5], std=[0.0]) or c.update(format_version=2), ["of three channels or one"]),
        (lambda c: c["dataset"].update(mean=[0.5] * 2, std=[0.5] * 2) or c.update(format_version=2), ["three channels or one"]),
        (lambda c: c.update(format="other"), ["'other'"]),
        (lambda c: c.pop("cfg"), ["lacks cfg"]),
        (lambda c: c.pop("state_dict"), ["no state_dict"]),
    ],
)  # fmt: skip
def test_content_that_cannot_be_used_is_named(change, words: list[str], tmp_path: Path) -> None:
    content = made().to_dict()
    change(content)
    archive.save(tmp_path / "a.pth", content)
    refused(tmp_path / "a.pth", *words)
