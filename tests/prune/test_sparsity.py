"""Scales that do not distinguish channels: how they are noticed, and the message about the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.checkpoint import archive
from prune.sparsity import looks_sparse
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
        ("strong.pth", "has BN scales that hardly differ: --s 1e+06 was too large; train with -sr and a smaller --s"),
        ("plain.pth", "looks not sparsity-trained: its BN scales hardly differ; train with -sr first"),
    ):
        done = command("prune.normal_regular", "--model", name, "--cpu", "--quiet")
        assert f"warning: {name} {cause}\n" in done.err
