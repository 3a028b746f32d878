"""Scales that do not distinguish channels: how they are noticed, and the message about the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.checkpoint import archive
from prune.sparsity import looks_sparse, say_what_moved
from tests.conftest import NARROW, SMALL
from tests.tools.contents import raw


@pytest.mark.parametrize("size", [2.0**-10, 1.0, 2.0**20])
@pytest.mark.parametrize(("spread", "sparse"), [(0.0, False), (0.9e-3, False), (1.1e-3, True)])
def test_large_scales_must_differ_by_more(size: float, spread: float, sparse: bool) -> None:
    scales = [torch.full((4,), size), torch.full((3,), -size - spread * max(1, size))]
    assert looks_sparse(scales) == sparse


def test_the_cause_of_scales_that_are_alike_is_named(command: Callable[..., SimpleNamespace], workplace: Path) -> None:
    """A strong penalty moves all scales together; the hint must not be -sr, which caused it."""
    strong = ("prune.train", "-sr", "--s", 1e6, "--cfg", NARROW, *SMALL, "--epochs", 2, "--save", "strong.pth")
    assert command(*strong).code == 0
    content = raw(workplace / "strong.pth")
    del content["transforms"][0]["s"]
    archive.save(workplace / "plain.pth", content)
    for name, cause in (
        (
            "strong.pth",
            "has BN scales that hardly differ: training was short, or --s 1e+06 too large; train with -sr for more epochs, or with "
            "a smaller --s",
        ),
        ("plain.pth", "looks not sparsity-trained: its BN scales hardly differ; train with -sr first"),
    ):
        done = command("prune.normal_regular", "--model", name, "--cpu", "--quiet")
        assert f"warning: {name} {cause}\n" in done.err


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([1.0, 1.0, 1.0], [0.998, 0.998, 0.5], "median 0.998 of the first"),
        ([1.0, -1.0, 1.0], [-1.0, 1.005, 1.2], "median 1.005 of the first"),
        ([1.0, 1.0, 1.0], [0.98, 0.98, 1.0], None),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], None),
    ],
)
def test_a_penalty_that_moves_nothing_is_noticed(
    before: list[float], after: list[float], words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    say_what_moved([torch.tensor(before)], [torch.tensor(after[:1]), torch.tensor(after[1:])])
    told = f"notice: the penalty hardly moved the batch norm scales ({words}): give a larger --s\n" if words else ""
    assert capsys.readouterr().err == told


def test_sparse_training_says_whether_it_moved_the_scales(command: Callable[..., SimpleNamespace]) -> None:
    line = ("prune.train", "-sr", "--cfg", NARROW, *(flag for flag in SMALL if flag != "--quiet"))
    told = "the penalty hardly moved the batch norm scales"
    assert told in command(*line, "--s", 1e-9, "--lr", 1e-4).err
    assert told not in command(*line, "--s", 1e-9, "--lr", 1e-4, "--resume").err  # complete
    assert told not in command(*line, "--s", 1e-9, "--lr", 1e-4, "--quiet").err
    assert told not in command(*line, "--s", 0.1).err
    assert told not in command("prune.train", *line[2:], "--lr", 1e-4).err
