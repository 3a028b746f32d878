"""Old files become current checkpoints with a description and checksums, and the same network; the output is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from engine.checkpoint import archive, format as checkpoint
from engine.data import catalogue
from engine.system import files
from tests.conftest import NARROW, assert_refused
from tests.tools.contents import raw, typed
from tests.tools.equality import same
from tests.tools.forge import packed, tiny
from tests.tools.original import SMALL, Original, prefixed
from tests.tools.residual import ARCH, residual


def old_file(path: Path, **more) -> Path:
    torch.manual_seed(0)
    path.write_bytes(packed({"state_dict": Original("tnn_bin").state_dict(), **more}, "legacy"))
    return path


def test_a_file_of_the_original(command, workplace: Path) -> None:
    old = old_file(workplace / "old.pth", best_acc=81.5)
    result = command("scripts.convert", "old.pth", "new/nin.pth", "--dataset", "cifar100", "--image_size", "16")
    assert result.code == 2  # it has 4 classes
    assert "100 classes, but the network has 4" in result.err
    assert not (workplace / "new").exists()
    result = command("scripts.convert", "old.pth", "new/nin.pth")
    assert (result.code, result.path) == (0, "new/nin.pth")
    content = raw(workplace / "new/nin.pth")
    assert (content["arch"], content["cfg"], content["arch_args"]) == ("nin", SMALL, {"classes": 4})
    assert (content["best_acc"], content["transforms"]) == (81.5, [{"stage": "original"}])
    assert content["dataset"]["name"] == "unknown"
    assert content["provenance"]["parent_sha256"] == files.sha256(old)
    assert content["provenance"]["command"] == "python -m scripts.convert old.pth new/nin.pth"
    assert checkpoint.load(workplace / "new/nin.pth").checksums
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    expected = Original("tnn_bin").eval()(x)
    assert torch.equal(models.restore(typed(content)).eval()(x), expected)


def test_the_data_set_is_recorded_and_used(command, workplace: Path) -> None:
    torch.save(models.build("nin", [8] * 8).state_dict(), workplace / "old.pth")
    result = command("scripts.convert", "old.pth", "new.pth", "--dataset", "digits", "--image_size", "8")
    assert result.code == 0
    content = raw(workplace / "new.pth")
    assert content["dataset"] == catalogue.load("digits", image_size=8).info.to_dict()
    result = command("prune.train", "--evaluate", "new.pth", "--cpu")
    assert result.code == 0
    assert "on digits (360 pictures)" in result.out


def test_what_a_file_cannot_say_is_asked_for_and_not_made_up(command, workplace: Path) -> None:
    def inspected() -> str:
        return command("engine.checkpoint.__main__", "inspect", "new.pth").out

    torch.save(models.build("nin", [8] * 8).state_dict(), workplace / "old.pth")
    told = "notice: old.pth does not name its data set, and neither does new.pth: give --dataset (and --mean and --std"
    assert told in command("scripts.convert", "old.pth", "new.pth").err
    assert "\naccuracy    unknown: it was not evaluated here\n" in inspected()
    assert told not in command("scripts.convert", "old.pth", "new.pth", "--dataset", "digits").err
    assert "\naccuracy    unknown: it was not evaluated here\n" in inspected()
    old_file(workplace / "old.pth", best_acc=81.5)
    assert command("scripts.convert", "old.pth", "new.pth").code == 0
    assert "\naccuracy    81.50 %, on unknown pictures\n" in inspected()


def test_weights_of_ones_own_network(command, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = residual([6, 4, 8], 3)
    torch.save(prefixed(network.state_dict()), workplace / "old.pth")
    result = command("scripts.summary", "old.pth")
    assert result.code == 3
    assert "python -m scripts.convert old.pth NEW.pth --arch package.module:function" in result.err
    line = ("scripts.convert", "old.pth", "new.pth", "--arch", ARCH, "--classes", 3, "--image_size", 8)
    x = torch.randn(2, 3, 8, 8)
    for widths in ((), ("--cfg", "6,4,8")):  # its default widths differ; its tensors determine the widths
        assert command(*line, *widths).code == 0
        content = raw(workplace / "new.pth")
        assert torch.equal(models.restore(typed(content), ARCH).eval()(x), network.eval()(x))
        (workplace / "new.pth").unlink()


@pytest.mark.parametrize(
    ("flags", "code", "word"),
    [
        (("--arch", "nin_gc"), 2, "the file holds nin"),
        (("--cfg", NARROW), 2, "has cfg [12,"),
        (("--classes", "10"), 2, "has 4 classes, but --classes asks for 10"),
        (("--dataset", "imagefolder"), 2, "imagefolder"),
    ],
)
def test_flags_that_contradict_the_weights(
    flags: tuple[str, ...], code: int, word: str, command, workplace: Path
) -> None:
    old_file(workplace / "old.pth")
    result = command("scripts.convert", "old.pth", "new.pth", *flags)
    assert result.code == code
    assert word in result.err
    assert not (workplace / "new.pth").exists()


def test_ours_pass_unchanged_and_say_everything_themselves(command, workplace: Path) -> None:
    content = tiny()
    archive.save(workplace / "a.pth", content)
    assert_refused(
        command("scripts.convert", "a.pth", "b.pth", "--dataset", "digits"), 2, "--dataset: a.pth already records it"
    )
    assert command("scripts.convert", "a.pth", "b.pth").code == 0
    assert same(raw(workplace / "b.pth"), content)
    assert command("scripts.convert", "b.pth", "c.pth").code == 0
    assert (workplace / "c.pth").read_bytes() == (workplace / "b.pth").read_bytes()
    content["state_dict"] = {k: v.double() if v.is_floating_point() else v for k, v in content["state_dict"].items()}
    archive.save(workplace / "double.pth", content)
    assert command("scripts.convert", "double.pth", "b.pth").code == 0
    assert same(raw(workplace / "b.pth"), content)
    assert command("scripts.convert", "b.pth", "c.pth").code == 0
    assert (workplace / "c.pth").read_bytes() == (workplace / "b.pth").read_bytes()


def test_input_and_output_may_be_one_file_only_if_told_so(command, workplace: Path) -> None:
    old = old_file(workplace / "old.pth")
    before = old.read_bytes()
    (workplace / "link.pth").symlink_to(old)
    for new in ("old.pth", "./old.pth", "link.pth"):
        assert_refused(command("scripts.convert", "old.pth", new), 2, "both input and output")
    assert old.read_bytes() == before
    assert command("scripts.convert", "old.pth", "old.pth", "--overwrite").code == 0
    assert raw(old)["format"] == checkpoint.FORMAT


def test_a_bad_file_leaves_the_output_alone(command, workplace: Path) -> None:
    (workplace / "new.pth").write_text("precious")
    (workplace / "old.pth").write_text("no checkpoint")
    assert_refused(command("scripts.convert", "old.pth", "new.pth"), 3, "not a torch file")
    assert_refused(command("scripts.convert", "none.pth", "new.pth"), 3, "no such file")
    assert_refused(command("scripts.convert", "old.pth", "old.pth/x.pth"), 6, "old.pth/x.pth")
    assert (workplace / "new.pth").read_text() == "precious"
