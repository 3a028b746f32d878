"""A file is for pictures of one size; with another size commands adapt its network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

import models
from engine.checkpoint import archive
from quant.restore import open as opened
from tests.conftest import assert_refused
from tests.tools import folders
from tests.tools.contents import raw

Command = Callable[..., SimpleNamespace]
AT_12 = ("--image_size", 12, "--cpu", "--quiet")


def test_a_file_goes_on_with_pictures_of_another_size(refined: Command) -> None:
    told = "notice: the pictures are 12x12, but the file is for 8x8\n"
    first = refined("quant.ptq", *AT_12)
    assert first.code == 0, first.err
    assert told in first.err
    merged = refined("bn_merge.__main__", "--model", first.path, "--cpu", "--quiet")
    assert merged.code == 0, merged.err
    assert "the pictures are" not in merged.err
    for path in (first.path, merged.path):
        made = opened(Path(path))
        assert (made.checkpoint.dataset.image_size, made.network.captured.picture) == (12, (3, 12, 12))
    compared = refined("bn_merge.compare", merged.path, "--image_size", 16, "--cpu", "--quiet", "--float64")
    assert compared.code == 0, compared.err
    assert "same answer   360 of 360" in compared.out


def test_another_data_sets_size_is_told_in_every_command(refined: Command) -> None:
    folders.write(Path("other"), {"train": 2, "test": 1}, [str(number) for number in range(10)], 12)
    file, other = "models_save/nin_refine.pth", ("--dataset", "imagefolder", "--data", "other", "--cpu", "--quiet")
    for command in (
        ("quant.ptq", "--model", file, "--save", "a.pth"),
        ("prune.train", "--refine", file, "--epochs", 1, "--save", "b.pth", "--run_dir", "b"),
        ("scripts.summary", "--sensitivity", file),
    ):
        done = refined(*command, *other)
        assert done.code == 0, done.err
        assert "notice: the pictures are 12x12, but the file is for 8x8\n" in done.err, command


def test_a_file_is_judged_on_pictures_of_another_size(refined: Command) -> None:
    for module in ("prune.train", "quant.wqaq"):
        done = refined(module, "--evaluate", "models_save/nin_refine.pth", *AT_12)
        assert done.code == 0, done.err
        assert "notice: the pictures are 12x12, but the file is for 8x8" in done.err
    assert "block1.conv" in refined("scripts.summary", "models_save/nin_refine.pth", "--image_size", 12).out


def test_a_file_that_says_no_size_is_trained_on_at_the_one_that_is_given(refined: Command) -> None:
    torch.save(models.build("nin", [8] * 8).state_dict(), "bare.pth")
    flags = ("--model", "bare.pth", "--dataset", "digits", *AT_12, "--save", "small.pth")
    done = refined("prune.normal_regular", "--percent", 0.2, *flags)
    assert done.code == 0, done.err
    flags = ("--dataset", "digits", *AT_12, "--epochs", 1, "--save", "trained.pth")
    done = refined("prune.train", "--refine", "small.pth", *flags)
    assert done.code == 0, done.err
    assert opened(Path("trained.pth")).checkpoint.dataset.image_size == 12


def test_a_file_whose_widths_do_not_go_together_is_refused(refined: Command) -> None:
    content = raw(Path("models_save/nin_refine.pth"))
    state = content["state_dict"]
    state["block4.conv.weight"] = state["block4.conv.weight"][:, :3]  # block 3 gives more channels
    archive.save(Path("bad.pth"), content)
    done = refined("quant.ptq", "--model", "bad.pth", "--cpu", "--save", "out.pth")
    assert_refused(done, 3, "the weights do not fit the network: block4.conv.weight has shape (")
