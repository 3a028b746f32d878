"""Code that treats channels differently, or has numbers for each: pruned exactly, also when reopened, or left whole."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.surgery.narrow import narrowed
from tests.tools.between import SIZE, WIDTH, Code, cut_exactly, disturbed, reasons


def halves(net: Code, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.cat([F.relu(a), F.leaky_relu(b, 0.5)], 1)


def shifts(net: Code, x: Tensor) -> Tensor:
    a, b, c, d = F.relu(x).chunk(4, 1)
    return torch.cat([a.roll(1, 2), b.roll(-1, 2), c.roll(1, 3), d], 1)


def pools(net: Code, x: Tensor) -> Tensor:
    a, b = F.relu(x).chunk(2, 1)
    return torch.cat([F.max_pool2d(a, 2), F.avg_pool2d(b, 2)], 1)


def permuted(net: Code, x: Tensor) -> Tensor:
    return F.relu(x)[:, torch.arange(x.shape[1]).view(2, -1).t().flatten()]


def divided(net: Code, x: Tensor) -> Tensor:
    return F.relu(x) / net.scale


def weighed(net: Code, x: Tensor) -> Tensor:
    return F.relu(x) * torch.linspace(0.1, 4, x.shape[1])[:, None, None].to(x)


def by_buffer(net: Code, x: Tensor) -> Tensor:
    return F.relu(x) * net.scale


def encoded(net: Code, x: Tensor) -> Tensor:
    _, c, h, w = x.shape
    where = torch.zeros(1, c, h, w, dtype=x.dtype)
    waves = torch.arange(h, dtype=x.dtype)[:, None] * torch.exp(torch.arange(0, c, 2) * (-math.log(100) / c)).to(x)
    where[0, 0::2] = torch.sin(waves).t()[:, :, None].expand(-1, h, w)
    where[0, 1::2] = torch.cos(waves).t()[:, :, None].expand(-1, h, w)
    return F.relu(x) + where


def by_norm(net: Code, x: Tensor) -> Tensor:
    return F.relu(x) / net.first[0].weight.norm()


def chosen(net: Code, x: Tensor) -> Tensor:
    """Mix a kernel for each picture, with a group of one convolution for each (CondConv, arXiv 1904.04971)."""
    b, c, h, w = x.shape
    kernels = torch.einsum("bk,koihw->boihw", x.mean((2, 3)).sigmoid(), net.kernels).reshape(b * WIDTH, c, 3, 3)
    return F.conv2d(x.reshape(1, b * c, h, w), kernels, padding=1, groups=b).reshape(b, WIDTH, h, w)


def side_by_side(net: Code, x: Tensor) -> Tensor:
    """Pool all pictures of a batch as one wide picture."""
    b, c, h, w = x.shape
    wide = F.relu(x).permute(1, 2, 0, 3).reshape(1, c, h, b * w)
    return F.avg_pool2d(wide, 2).reshape(c, h // 2, b, w // 2).permute(2, 0, 1, 3)


def gated(net: Code, x: Tensor) -> Tensor:
    return torch.cat([F.glu(x, 1), F.glu(-x, 1)], 1)


def gated_rows(net: Code, x: Tensor) -> Tensor:
    return F.glu(x, 2)


def pooled(net: Code, x: Tensor) -> Tensor:
    return F.adaptive_max_pool2d(x, 5) * F.adaptive_max_pool2d(x, 1)


def unpooled(net: Code, x: Tensor) -> Tensor:
    values, where = F.max_pool2d(x, 2, return_indices=True)
    return values * where


def largest(net: Code, x: Tensor) -> Tensor:
    values, where = x.max(3, keepdim=True)
    return F.relu(x) * values + x.min(2)[0].unsqueeze(2) * where


def remembers(net: Code, x: Tensor) -> Tensor:
    """A first state of zeros, and a value made of ones."""
    y = F.relu(x)
    state = torch.zeros_like(y)
    whole = torch.cat([state + y, state], 1)[:, : y.shape[1]]
    return whole * (1 - 0.5 * torch.ones_like(whole)) + torch.full_like(y, 0.25) * y


COMBINED: dict[str, Callable[..., Tensor]] = {
    "torch.max": lambda x: torch.max(x, x.square()), "torch.min": lambda x: torch.min(x, x.square()),
    "maximum": lambda x: torch.maximum(x, x.square()), "minimum": lambda x: torch.minimum(x, x.square()),
    "fmax": lambda x: torch.fmax(x, x.square()), "fmin": lambda x: torch.fmin(x, x.square()),
    "lerp": lambda x: torch.lerp(x, F.relu(x), 0.3), "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "rrelu": F.rrelu, "atan": torch.atan,
}  # fmt: skip


def ones() -> Tensor:
    return torch.rand(WIDTH, 1, 1, generator=torch.Generator().manual_seed(0)) + 0.5


NETWORKS: dict[str, Callable[[], Code]] = {
    **{run.__name__: (lambda run=run: Code(run)) for run in (halves, shifts, pools, permuted)},
    **{run.__name__: (lambda run=run: Code(run)) for run in (gated, gated_rows, pooled, unpooled, largest, remembers)},
    **{name: (lambda run=run: Code(lambda net, x: run(x))) for name, run in COMBINED.items()},
    "divided": lambda: Code(divided, scale=nn.Parameter(ones())),
    **{run.__name__: (lambda run=run: Code(run)) for run in (weighed, encoded, by_norm)},
    "by_buffer": lambda: Code(by_buffer, scale=ones()),
    "chosen": lambda: Code(chosen, kernels=nn.Parameter(torch.randn(WIDTH, WIDTH, WIDTH, 3, 3) / 8)),
    "side_by_side": lambda: Code(side_by_side),
}
WHOLE = {
    "weighed": "combined with a constant for each channel: mul",
    "encoded": "combined with a constant for each channel: add",
    "by_norm": "first.0.weight is read by operations other than its layer",
    "by_buffer": "combined with a constant for each channel: mul",
    "chosen": "read by einsum",
}


def made(name: str) -> Code:
    torch.manual_seed(0)
    return disturbed(NETWORKS[name]())


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_cut_exactly_and_reopened_as_it_was_stored(name: str) -> None:
    small = cut_exactly(made(name), name)
    assert (len(small.get_submodule("first.0").weight) == WIDTH) is (name in WHOLE)


@pytest.mark.parametrize(("name", "why"), WHOLE.items())
def test_what_it_knows_of_channels_keeps_them_in_both_precisions(name: str, why: str) -> None:
    for kind in (torch.float32, torch.float64):
        form = capture(made(name).to(kind), (3, SIZE, SIZE), name)
        assert reasons(form, "first.0.weight") == {why}


class Tokens(nn.Module):
    """A pool over a value without a batch axis, which therefore pools channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.max_pool2d(F.relu(self.conv(x)).flatten(2), (2, 36)).flatten(1))


def test_a_pool_over_channels_keeps_them() -> None:
    assert reasons(capture(Tokens().eval(), (3, SIZE, SIZE), "tokens"), "conv.weight") == {"read by max_pool2d"}


def test_labels_are_those_of_evaluation_in_training_too() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SELU(), nn.AlphaDropout(0.3), nn.Conv2d(8, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    form = capture(net, (3, SIZE, SIZE), "alpha")
    assert channels(form.train()).fixed == channels(form.eval()).fixed


def test_a_batch_norm_without_scales_knows_how_many_channels_are_left() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ).eval()  # fmt: skip
    form = capture(net, (3, SIZE, SIZE), "plain")
    found = channels(form)
    rows = next(p for p in found.places if (p.tensor, p.axis) == ("0.weight", 0))
    small = narrowed(net, form, found, {int(cls) for cls in rows.classes[:3]}, "plain")
    assert small.get_submodule("1").num_features == 5
