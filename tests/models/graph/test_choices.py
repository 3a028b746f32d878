"""Code that compares and chooses (where, masks, writes under masks): its channels are cut exactly, and constants survive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.surgery.absorb import absorb
from prune import plan as planning
from prune.widths import Subject
from tests.tools.between import SIZE, WIDTH, Code, cut_exactly, disturbed, reasons
from tests.tools.cases import conv_bn

Run = Callable[[Code, Tensor], Tensor]


def written_under_a_mask(net: Code, x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


def shrunk(net: Code, x: Tensor) -> Tensor:
    """Shrink by a threshold of each map (DRSN, IEEE TII 2020)."""
    size = x.abs()
    rest = size - size.mean((2, 3), keepdim=True) * torch.sigmoid(net.scale)
    return torch.sign(x) * torch.where(rest > 0, rest, torch.zeros_like(rest))


RELUS: dict[str, Run] = {
    "where": lambda net, x: torch.where(x > 0, x, 0.0),
    "where, of a tensor": lambda net, x: torch.where(x > 0, x, torch.tensor(0.0, dtype=x.dtype, device=x.device)),
    "a mask": lambda net, x: x * (x > 0),
    "a mask of numbers": lambda net, x: x * (x > 0).to(x.dtype),
    "filled": lambda net, x: x.masked_fill(x < 0, 0.0),
    "filled where not": lambda net, x: x.masked_fill(~(x > 0), 0.0),
    "truths": lambda net, x: torch.where(torch.logical_or(x > 1, (x > 0) & (x <= 1)), x, 0.0),
    "written": written_under_a_mask,
}
CODES: dict[str, Run] = {
    **RELUS,
    "0 by a gate": lambda net, x: (
        x.masked_fill(net.gate(x) > 0, 0.0) + torch.where((net.gate(x) > 0).expand_as(x), 0.0, x)
    ),
    "leaky": lambda net, x: torch.where(x >= 0, x, 0.1 * x),
    "shrunk": shrunk,
    "the larger": lambda net, x: torch.where(net.a(x) > x, net.a(x), x),
    "above its mean": lambda net, x: x * (x > x.mean((2, 3), keepdim=True)),
    "above a learned number": lambda net, x: torch.where(x > net.bounds.view(1, -1, 1, 1), x, 0.0),
    "not equal": lambda net, x: x * torch.ne(x, net.a(x)) + x * torch.logical_xor(x > 0, x < 1),
}


def made(run: Run) -> Code:
    torch.manual_seed(0)
    return disturbed(Code(run, a=conv_bn(WIDTH, WIDTH), scale=nn.Parameter(torch.zeros(())),
                          bounds=nn.Parameter(torch.linspace(-0.5, 0.5, WIDTH)), gate=conv_bn(WIDTH, 1)))  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_its_channels_are_cut_exactly(name: str) -> None:
    small = cut_exactly(made(CODES[name]), name)
    assert len(small.get_submodule("first.0").weight) < WIDTH


@pytest.mark.parametrize("name", RELUS)
def test_constants_of_dropped_channels_move_into_biases_as_behind_relu(name: str) -> None:
    found = []
    for run in (RELUS[name], lambda net, x: x.relu()):
        net = made(run)
        net.second[0] = nn.Conv2d(WIDTH, 8, 1, dtype=torch.float64)  # zeros of padding are no constant
        net.second[0].weight.data.fill_(0.1)
        form = capture(net, (3, SIZE, SIZE), name)
        its = channels(form)
        dropped = planning.plan(Subject(form, form, its, name), 0.4).dropped
        found.append(absorb(form, its, dropped))
    (own, left), (expected, also_left) = ((each.model.state_dict(), each.left) for each in found)
    assert left == also_left == set()
    assert all(torch.equal(own[key], expected[key]) for key in expected)
    assert not torch.equal(own["second.0.bias"], net.second[0].bias)


STAYS: dict[str, tuple[Run, str]] = {
    "1 where 0": (lambda net, x: torch.where(x <= 0, 1.0, x), "not 0 when masked, read by second.0"),
    "a truth of 0": (lambda net, x: (x >= 0).to(x.dtype), "not 0 when masked, read by second.0"),
    "equal": (lambda net, x: x + torch.eq(x, net.a(x)), "not 0 when masked, read by second.0"),
    "not": (lambda net, x: (~(x > 0)).to(x.dtype), "not 0 when masked, read by second.0"),
    "by a gate": (lambda net, x: torch.where(torch.sigmoid(x) > 0.4, 1.0, x), "not 0 when masked, read by second.0"),
    "by a learned number": (lambda net, x: torch.where(x > net.scale, x, x + 1), "not 0 when masked, read by second.0"),
    "one map for all": (lambda net, x: torch.where(x[:, :1] > 0, x, 0.0), "broadcast over several channels: where"),
    "1 by a gate": (lambda net, x: torch.where(net.gate(x) > 0, 1.0, x), "not 0 when masked, read by second.0"),
    "filled by a gate": (lambda net, x: x.masked_fill(net.gate(x) > 0, 1.0), "not 0 when masked, read by second.0"),
    "a map for all": (lambda net, x: torch.where(x >= 0, net.gate(x), x), "not 0 when masked, read by second.0"),
    "an expanded gate": (
        lambda net, x: torch.where((net.gate(x) > 0).expand_as(x), 1.0, x),
        "not 0 when masked, read by second.0",
    ),
    "a learned number": (
        lambda net, x: torch.where(x <= 0, torch.expm1(net.scale), x),
        "not 0 when masked, read by second.0",
    ),
    "bits": (lambda net, x: (~(x.to(torch.int32) + 1)).to(x.dtype), "read by bitwise_not"),
    "a truth in the code": (lambda net, x: x * ((x > 0) & True), "read by bitwise_and"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_0_when_masked_stays(name: str) -> None:
    run, why = STAYS[name]
    assert why in reasons(capture(made(run), (3, SIZE, SIZE), name), "first.0.weight")


def test_integers_keep_their_channels_and_leave_others_to_be_cut() -> None:
    small = cut_exactly(made(lambda net, x: ((10 * x).to(torch.int32) & 6).to(x.dtype)), "bits", 0.6)
    assert len(small.get_submodule("first.0").weight) == WIDTH
    assert len(small.get_submodule("second.0").weight) < WIDTH
