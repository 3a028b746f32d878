"""Bilinear upsampling by the engine: every number equals the reference's, and the neighbours are those of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deploy.native.executor import Native
from deploy.operations.places import Upsample, between
from deploy.reference.run import run
from tests.deploy.by_hand import op, program


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (7, 6), (14, 12), (9, 64)])
@pytest.mark.parametrize("channels", [1, 19])
def test_every_number_is_that_of_the_reference(size: tuple[int, int], align: bool, channels: int, kernels: str) -> None:
    made = program(op(Upsample, 0, kind="bilinear", size=size, align_corners=align), shape=(channels, 7, 6))
    x = torch.randn(3, channels, 7, 6)
    native = Native(made, kernels)
    assert "by the reference" not in native.how
    found = native(x)
    assert torch.equal(found, run(made, x))
    expected = F.interpolate(x.double(), size, mode="bilinear", align_corners=align)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_the_neighbours_by_hand() -> None:
    first, second, share = between(4, 2, align=False)
    assert (first.tolist(), second.tolist()) == ([0, 0, 0, 1], [1, 1, 1, 1])
    np.testing.assert_allclose(share, [0, 0.25, 0.75, 0.25])
    assert between(3, 2, align=True)[2].tolist() == [0, 0.5, 0]
    assert between(1, 3, align=False)[0].tolist() == [1]
