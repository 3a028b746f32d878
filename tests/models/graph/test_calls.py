"""Calls of a captured graph: what export made for its example holds for any number of pictures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.graph.capture.form import capture
from tests.tools.odd_networks import Bare


@pytest.mark.parametrize(
    "squeeze",
    [Tensor.squeeze, lambda x: x.squeeze((0, 2, 3)), lambda x: x.squeeze(0).squeeze(-1).squeeze(-1), lambda x: (x * 2).squeeze_()],
    ids=["all", "some", "one by one", "in place"],
)  # fmt: skip
def test_squeeze_keeps_the_axis_of_pictures_of_one_picture_too(squeeze: Callable[[Tensor], Tensor]) -> None:
    """Your code drops it from a last batch of one picture; the captured network answers as for each of several."""

    def run(net: nn.Module, x: Tensor) -> Tensor:
        return (squeeze(F.adaptive_avg_pool2d(x, 1)) * net.scale.squeeze())[..., None, None]

    own = Bare(run, scale=nn.Parameter(torch.rand(1, 6)))
    form, x = capture(own, (3, 16, 16), "net"), torch.randn(5, 3, 16, 16)
    assert torch.equal(form(x), own(x))
    one = form(x[:1])
    assert one.shape == (1, 4)
    torch.testing.assert_close(one, form(x)[:1])
