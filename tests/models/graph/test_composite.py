"""Calls that PyTorch writes with others: capture writes them out, so pruning and packing know them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.reference.run import run
from engine.numerics.layout import channels_last
from models.graph import flow
from models.graph.calls import packet
from models.graph.capture import lift
from models.graph.capture.composite import COMPOSITE, RESIZES, WHOLE
from models.graph.capture.form import capture
from models.graph.channels import call_rules, labels
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from tests.deploy.lowering.calling import lowered

aten = torch.ops.aten
Call = Callable[[nn.Module, Tensor], Tensor]


class Net(nn.Module):
    """Two convolutions with a call between them."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call, self.gain = call, nn.Parameter(torch.linspace(-1, 2, 8).reshape(8, 1, 1))
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.LazyConv2d(5, 1)
        with torch.no_grad():
            self(torch.zeros(1, 3, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self, self.stem(x))).mean((2, 3))


def captured(call: Call) -> NormalForm:
    torch.manual_seed(0)
    return capture(Net(call).eval(), (3, 8, 8), "a test")


SAME: dict[str, tuple[Call, Call]] = {
    "absolute": (lambda s, x: torch.absolute(x), lambda s, x: x.abs()),
    "clip": (lambda s, x: torch.clip(x, -0.5, 0.25), lambda s, x: x.clamp(-0.5, 0.25)),
    "in place": (lambda s, x: x.clip_(0, 1).multiply_(s.gain).negative_(), lambda s, x: -(x.clamp(0, 1) * s.gain)),
    "concat": (lambda s, x: torch.concat([x, -x], 1), lambda s, x: torch.cat([x, -x], 1)),
    "divide": (lambda s, x: torch.divide(x, 3), lambda s, x: x / 3),
    "fliplr": (lambda s, x: torch.fliplr(x), lambda s, x: x.flip(1)),
    "hstack": (lambda s, x: torch.hstack([x, x]), lambda s, x: torch.cat([x, x], 1)),
    "hsplit": (lambda s, x: torch.hsplit(x, 2)[1], lambda s, x: x[:, 4:8]),
    "max": (lambda s, x: torch.max(x, -x), lambda s, x: torch.maximum(x, -x)),
    "movedim": (lambda s, x: x.movedim(3, 2), lambda s, x: x.permute(0, 1, 3, 2)),
    "mT": (lambda s, x: x.mT, lambda s, x: x.transpose(-2, -1)),
    "multiply": (lambda s, x: torch.multiply(x, s.gain), lambda s, x: x * s.gain),
    "narrow": (lambda s, x: x.narrow(1, 2, 4), lambda s, x: x[:, 2:6]),
    "subtract": (lambda s, x: torch.subtract(x, x.relu(), alpha=2), lambda s, x: torch.sub(x, x.relu(), alpha=2)),
    "swapaxes": (lambda s, x: x.swapaxes(2, 3), lambda s, x: x.transpose(2, 3)),
    "tile": (lambda s, x: torch.tile(x, (1, 1, 2, 1)), lambda s, x: x.repeat(1, 1, 2, 1)),
    "true_divide": (lambda s, x: torch.true_divide(x, s.gain.exp()), lambda s, x: x / s.gain.exp()),
    "type_as": (lambda s, x: x.type_as(s.gain), lambda s, x: x),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_a_call_is_the_call_that_it_stands_for(name: str) -> None:
    form, other = (captured(call) for call in SAME[name])
    assert told(form) == told(other)
    assert not {packet(node) for node in form.captured.graph.nodes} & composite()
    found, expected = channels(form), channels(other)
    assert [(p.tensor, p.classes.tolist()) for p in found.places] == [
        (p.tensor, p.classes.tolist()) for p in expected.places
    ]
    assert found.fixed == expected.fixed


PACKED: dict[str, Call] = {
    "average of lines": lambda s, x: F.avg_pool1d(x.flatten(2), 3, 2, 1).unsqueeze(2),
    "cosine": lambda s, x: x * F.cosine_similarity(x, s.gain[None], 1).unsqueeze(1),
    "means of lines": lambda s, x: F.adaptive_avg_pool1d(x.flatten(2), 7).unsqueeze(2),
    "mean of lines": lambda s, x: x * F.adaptive_avg_pool1d(x.flatten(2), 1).unsqueeze(2),
    "maxima of lines": lambda s, x: F.adaptive_max_pool1d(x.flatten(2), 9).unsqueeze(2),
    "maximum of lines": lambda s, x: F.max_pool1d(x.flatten(2), 3, 2, 1).unsqueeze(2),
    "repeated": lambda s, x: x.repeat_interleave(2, 1) + torch.tile(x, (1, 2, 1, 1)),
    "root mean square": lambda s, x: F.rms_norm(x, (8, 8)),
    "softmin": lambda s, x: F.softmin(x, 1),
}


UNPACKED = {"fliplr"}  # programs have no flip


@pytest.mark.parametrize("name", [*PACKED, *(name for name in SAME if name not in UNPACKED)])
def test_a_call_packs(name: str) -> None:
    form = captured(PACKED.get(name) or SAME[name][0])
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = form(x).detach()
    assert torch.allclose(run(lowered(form), x), expected, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("name", ["bilinear", "fft_fft2", "one_hot", "upsample_linear1d"])
def test_calls_that_stay(name: str) -> None:
    """Their code reads memory, names a type, or returns nothing; or their inner call rounds differently."""
    run: dict[str, Call] = {
        "bilinear": lambda s, x: F.bilinear(x, x, s.gain.reshape(1, 1, 8).expand(2, 8, 8)),
        "fft_fft2": lambda s, x: torch.fft.fft2(x).abs(),
        "one_hot": lambda s, x: x * F.one_hot((x.mean((2, 3)) > 0).long(), 2)[:, :, 1, None, None],
        "upsample_linear1d": lambda s, x: F.interpolate(x.flatten(2), scale_factor=0.3, mode="linear").unsqueeze(2),
    }
    assert getattr(aten, name) in {packet(node) for node in captured(run[name]).captured.graph.nodes}


def test_recurrent_layers_stay() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.rest, self.head = nn.Conv2d(3, 8, 3), nn.GRU(8, 4, batch_first=True), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rest(self.stem(x).mean(2).transpose(1, 2))[0][:, -1])

    form = capture(Recurrent().eval(), (3, 8, 8), "a test")
    assert aten.gru in {packet(node) for node in form.captured.graph.nodes}


def test_rules_meet_the_calls_that_they_know() -> None:
    known = (
        call_rules.RULES,
        labels.MOVES,
        labels.POINTWISE,
        labels.REDUCTIONS,
        lift.WITHOUT_WEIGHT,
        lift.WITH_WEIGHT,
        flow.COMPUTES,
    )
    written_out = {call for each in known for call in each} & composite()
    assert not written_out


def composite() -> set[Any]:
    """Return the operations of PyTorch whose every form is composite and written out by capture."""
    forms: dict[str, list[bool]] = {}
    for name in torch._C._dispatch_get_all_op_names():
        call = name.partition("::")[2].partition(".")[0]
        forms.setdefault(call, []).append(torch._C._dispatch_has_kernel_for_dispatch_key(name, COMPOSITE))
    calls = [n for n in forms if all(forms[n]) and n.removesuffix("_") not in WHOLE and RESIZES not in n]
    return {getattr(aten, name) for name in calls if hasattr(aten, name)}


def told(form: NormalForm) -> list[tuple[str, str]]:
    """Return the calls of a graph."""
    return [
        (str(node.target), str((node.args[1:], node.kwargs)))
        for node in form.captured.graph.nodes
        if node.op == "call_function"
    ]


def test_weight_norm_trains_with_its_weight_laid_out_channels_last() -> None:
    """As training does. PyTorch's inner call takes contiguous tensors alone."""
    made = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Flatten()
    )
    form, x = capture(made.eval(), (3, 4, 4), "a test").train(), torch.rand(2, 3, 4, 4)
    form(x).square().sum().backward()
    expected = [parameter.grad for parameter in form.parameters()]
    form.zero_grad(set_to_none=True)
    channels_last(form)(x.to(memory_format=torch.channels_last)).square().sum().backward()
    for parameter, gradient in zip(form.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
