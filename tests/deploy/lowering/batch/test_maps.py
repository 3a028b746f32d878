"""Layers, pools and norms on maps that are laid beside the pictures compute what they did, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from deploy import description
from deploy.lowering.batch.first import batch_first
from deploy.native.executor import Native
from deploy.operations.base import Codes
from deploy.operations.layers import Convolution
from deploy.reference.run import run
from engine.errors import UserError
from engine.system.compiled import Unavailable
from models.graph.capture.form import capture
from tests.deploy.lowering.batch.checking import assert_computes
from tests.deploy.lowering.calling import Calling, captured, lowered, network
from tests.deploy.quantized import SIDE, SPECS, pictures, trained
from tests.tools.cases import conv_bn

GROUPS = 4


class EMA(nn.Module):
    """Efficient multi-scale attention (arXiv 2305.13563) on 8 channels in 4 groups, which share all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.norm, self.pool = nn.GroupNorm(2, 2), nn.AdaptiveAvgPool2d(1)
        self.both, self.local = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        count, channels, high, wide = x.shape
        parts = x.reshape(count * GROUPS, -1, high, wide)
        sides = self.both(torch.cat([self.rows(parts), self.columns(parts).permute(0, 1, 3, 2)], 2))
        rows, columns = torch.split(sides, [high, wide], 2)
        one, other = self.norm(parts * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid()), self.local(parts)
        places = [self.pool(each).reshape(count * GROUPS, -1, 1).permute(0, 2, 1).softmax(-1) for each in (one, other)]
        flat = [each.reshape(count * GROUPS, channels // GROUPS, -1) for each in (other, one)]
        shares = (places[0] @ flat[0] + places[1] @ flat[1]).reshape(count * GROUPS, 1, high, wide)
        return (parts * shares.sigmoid()).reshape(count, channels, high, wide)


class Windows(nn.Module):
    """A module on windows of 4 x 4 places, as in EfficientViT (arXiv 2305.07027)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        x = x.view(count, 8, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(count * 4, 8, 4, 4)
        x = self.inner(x)
        _, channels, high, wide = x.shape
        return (
            x.view(count, 2, 2, channels, high, wide)
            .permute(0, 3, 1, 4, 2, 5)
            .reshape(count, channels, 2 * high, 2 * wide)
        )


class Normalized(nn.Conv2d):
    """Its weight is computed."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, F.normalize(self.weight), self.bias)


MADE: dict[str, Callable[[], nn.Module]] = {
    "EMA": EMA,
    "a layer": lambda: Windows(nn.Conv2d(8, 6, 3, 2, 1)),
    "a layer in groups": lambda: Windows(nn.Conv2d(8, 8, 3, groups=8)),
    "a layer with a computed weight": lambda: Windows(Normalized(8, 4, 3)),
    "a transposed layer": lambda: Windows(nn.ConvTranspose2d(8, 5, 2, 2)),
    "a pool": lambda: Windows(nn.MaxPool2d(3, 2, 1)),
    "a mean": lambda: Windows(nn.AvgPool2d(2)),
    "a called pool": lambda: Windows(Calling(lambda s, x: F.max_pool2d(x, 2))),
    "a batch norm": lambda: Windows(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8))),
    "a group norm": lambda: Windows(nn.GroupNorm(4, 8)),
    "nearest": lambda: Windows(Calling(lambda s, x: F.interpolate(x, scale_factor=2.0))),
    "bilinear": lambda: Windows(Calling(lambda s, x: F.interpolate(x, size=(6, 6), mode="bilinear"))),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_it_computes_what_it_did(name: str) -> None:
    assert_computes(network(MADE[name]()))


def test_a_layer_is_stored_once() -> None:
    program = lowered(captured(network(Windows(nn.Conv2d(8, 6, 3)))))
    layers = [op for op in program.operations if isinstance(op, Convolution)]
    assert len(layers) == 5  # the stem, and four windows
    _, rows = description.written(program)
    assert rows.numbers.size < 2 * (8 * 6 * 9 + 3 * 8)


@pytest.mark.parametrize("kind", ["w8a8", "lsq", "int8", "int8 folded", "wbab bacp", "wbab cbap", "wtat", "wta8"])
def test_quantized_layers_on_windows(kind: str) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(conv_bn(8, 8, 3), conv_bn(8, 6, 3, 2))
    made = nn.Sequential(conv_bn(3, 8, 3, 2), Windows(inner), nn.Flatten(), nn.Linear(96, 16))
    merged = merge(trained(capture(made.eval(), (3, SIDE, SIDE), "a test", check=False), SPECS[kind]))
    program = lowered(merged)
    layers = [op for op in program.operations if isinstance(op, Convolution)]
    assert sum(isinstance(op.matrix.weight, Codes) for op in layers) >= 8
    x = pictures(8)
    found, exact = run(program, x).double(), merged.double()
    expected = exact(x.double())
    assert torch.equal(batch_first(exact)(x.double()), expected)
    # first and last layers are rounded to 8 bits, which moves codes of few bits: 0.88 without windows, too
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.85
    try:
        native = Native(program)
    except Unavailable as fault:
        pytest.skip(str(fault))
    assert torch.equal(native(x), run(program, x))


def turned(call: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """Return a network whose pictures are behind the channels of its maps."""
    return lambda: Calling(lambda s, x: call(x.permute(1, 0, 2, 3)).permute(1, 0, 2, 3))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "behind another axis": (turned(lambda x: F.max_pool2d(x, 2)), "maps that are not behind the axis of the pictures"),
    "many windows": (
        lambda: Calling(lambda s, x: F.conv2d(x.permute(0, 2, 3, 1).reshape(-1, 1, 2, 2), torch.ones(1, 1, 1, 1)).reshape(-1, 8, 8, 8)),
        "it runs on 128 groups or windows",
    ),
    "in front of a max-pool": (
        lambda: Windows(nn.Sequential(nn.Conv2d(8, 8, 1), nn.MaxPool2d(2))), "in front of a max-pool",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(UserError, match=words):
        lowered(captured(network(make())))
