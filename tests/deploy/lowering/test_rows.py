"""Channels-last code and attention become operations on tables, which the native engine computes itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deploy.lowering.combining import flattened
from deploy.native.executor import Native
from deploy.operations.functions import Function
from deploy.operations.layers import Affine, Linear
from deploy.operations.places import Permute, Reshape
from engine.system.compiled import Unavailable
from tests.deploy.lowering.batch.attentions import ATTENTIONS
from tests.deploy.lowering.calling import Call, assert_same, captured, lowered, network

CALLS: dict[str, Call] = {
    "softmax": lambda s, x: x.softmax(-1), "log_softmax": lambda s, x: F.log_softmax(x.flatten(2), -1), "a row's factors": lambda s, x: x * s.row + s.row,
    "layer_norm": lambda s, x: F.layer_norm(x, (8,), s.row, s.row), "layer_norm of maps": lambda s, x: F.layer_norm(x, (8, 8)),
    "a sum of four axes": lambda s, x: (x.reshape(-1, 2, 4, 8, 8) + s.all[:, None, :4]) * 2, "linear": lambda s, x: F.linear(x, s.map.tanh(), s.row),
    "both broadcast": lambda s, x: x.reshape(-1, 8, 1, 8, 8) + x.mean((2, 3)).reshape(-1, 1, 8, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", [*CALLS, *sorted({*ATTENTIONS} - {"normed"})])
def test_the_engine_needs_no_reference(name: str) -> None:
    made = network(CALLS[name] if name in CALLS else ATTENTIONS[name]())
    program = lowered(captured(made))
    assert_same(program, made)
    try:
        assert "by the reference" not in Native(program).how
    except Unavailable as fault:
        pytest.skip(str(fault))


class ConvNeXt(nn.Module):
    """The block of a ConvNeXt (Liu et al., arXiv 2201.03545, section 2.6), whose linear layers read channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8, eps=1e-6)
        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.narrow(F.gelu(self.wide(y))) * self.scale).permute(0, 3, 1, 2)


def test_a_block_is_a_table_from_its_norm_to_its_scale() -> None:
    made = network(ConvNeXt())
    program = lowered(captured(made))
    assert_same(program, made)
    kinds = [type(operation) for operation in program.operations]
    assert (kinds.count(Permute), kinds.count(Reshape)) == (2, 2)
    shapes = {len(program.values[n + 1].shape) for n, kind in enumerate(kinds) if kind in (Linear, Function, Affine)}
    assert shapes == {2}


def test_readers_of_a_value_share_its_table() -> None:
    program = lowered(captured(network(lambda s, x: F.linear(x, s.map.tanh()) + F.linear(x, s.map.sin()))))
    assert [type(operation) for operation in program.operations].count(Reshape) == 3


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (((16, 2, 4, 4), (1, 2, 4, 4)), ((16, 32), (1, 32))), (((2, 3, 4, 5), (2, 3, 4, 5)), ((120,), (120,))),
        (((2, 1, 4, 5), (2, 3, 1, 1)), ((2, 1, 20), (2, 3, 1))), (((1, 3, 1, 5), (2, 3, 4, 5)), ((1, 3, 1, 5), (2, 3, 4, 5))),
    ],
)  # fmt: skip
def test_axes_that_broadcast_alike_are_joined(
    shapes: tuple[tuple[int, ...], ...], expected: tuple[tuple[int, ...], ...]
) -> None:
    assert flattened(*shapes) == expected
