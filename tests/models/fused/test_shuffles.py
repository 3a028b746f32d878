"""Channel shuffles in training and evaluation: recognised by what they move, in one pass, with the network's bits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from engine.numerics import precision
from models.blocks import ChannelShuffle
from models.fused import view
from models.fused.segment import Segment
from models.fused.shuffle import Shuffle, results
from models.fused.shuffles import shuffles
from models.fused.view import View
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.base import Quantized
from tests.tools import segments

LAST = torch.channels_last
WIDTH = 12


def _viewed(x: Tensor) -> Tensor:
    batch, channels, high, wide = x.shape
    return x.view(batch, 3, channels // 3, high, wide).transpose(1, 2).contiguous().view(batch, -1, high, wide)


SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "this toolkit's": ChannelShuffle(3),
    "ShuffleNet's": _viewed,
    "permuted": lambda x: x.unflatten(1, (3, 4)).permute(0, 2, 1, 3, 4).flatten(1, 2),
    "torch's": lambda x: F.channel_shuffle(x, 3),
    "torch's module": nn.ChannelShuffle(3),
    "through other axes": lambda x: (
        x.reshape(-1, 6, *x.shape[2:])
        .reshape(x.shape[0], 3, 4, *x.shape[2:])
        .transpose(1, 2)
        .reshape(-1, 6)
        .reshape(x.shape)
    ),
    "any number of pictures": lambda x: x.reshape(-1, 3, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
}
OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing moves": lambda x: x.reshape(x.shape[0], 3, 4, *x.shape[2:]).flatten(1, 2),
    "rows and columns": lambda x: x.transpose(2, 3).contiguous(),
    "a shuffle of columns": lambda x: x.unflatten(3, (2, 3)).transpose(3, 4).flatten(3),
    "channels turned round": lambda x: x.flip(1),
    "two shuffles in one": lambda x: x.unflatten(1, (2, 3, 2)).permute(0, 2, 1, 3, 4, 5).flatten(1, 3),
}  # fmt: skip


class Grouped(nn.Module):
    """Two grouped convolutions with moves between them."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, WIDTH, 3, padding=1, groups=3), nn.BatchNorm2d(WIDTH)
        self.move, self.second, self.after = move, nn.Conv2d(WIDTH, WIDTH, 1, groups=3), nn.BatchNorm2d(WIDTH)
        self.last = nn.Conv2d(WIDTH, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.move(self.norm(self.first(x)).relu())
        return self.last(self.after(self.second(x)).relu()).mean((2, 3))


def form_of(move: Callable[[Tensor], Tensor], side: int = 6) -> NormalForm:
    torch.manual_seed(3)
    form = capture(Grouped(move), (3, side, side), "grouped", check=False)
    return form.to(memory_format=LAST)


def found_in(form: NormalForm) -> list[Shuffle]:
    return [found.module for found in shuffles(form).values()]


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
@pytest.mark.parametrize("side", [6, 1])
@pytest.mark.parametrize("pictures", [4, 1])
def test_it_moves_what_the_code_moves(kind: str, layout: torch.memory_format, side: int, pictures: int) -> None:
    """In evaluation, strides are the code's own as well, because the bits of sums behind it depend on them."""
    [shuffle] = found_in(form_of(SAME[kind], side))
    assert shuffle.groups == 3
    x = torch.empty(pictures, WIDTH, side, side, memory_format=layout).normal_()
    own, codes = SAME[kind](x), Quantized(x.bfloat16(), torch.tensor(0.5))
    for training in (True, False):
        shuffle.train(training)
        assert torch.equal(shuffle(x), own)
        assert torch.equal(shuffle(codes).codes, own.bfloat16())
        assert shuffle(codes).scale is codes.scale
    assert shuffle(x).stride() == own.stride()


def test_code_that_keeps_the_format_of_many_pictures_alone() -> None:
    """With one picture, its last move returns other strides."""

    def move(x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2).unflatten(2, (3, 4)).transpose(2, 3)
        return places.flatten(2).transpose(1, 2).reshape(x.shape)

    [shuffle] = found_in(form_of(move))
    for pictures in (1, 2, 5):
        x = torch.empty(pictures, WIDTH, 6, 6, memory_format=LAST).normal_()
        assert shuffle.eval()(x).stride() == move(x).stride()


@pytest.mark.parametrize("kind", OTHER)
def test_other_moves_stay_the_networks_own(kind: str) -> None:
    assert found_in(form_of(OTHER[kind])) == []


class Copies(TorchDispatchMode):
    """Counts the operations that write a whole value."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_, torch.ops.aten._to_copy)
        return func(*args, **(kwargs or {}))


def test_it_takes_one_pass_forward_and_one_backward() -> None:
    [shuffle] = found_in(form_of(SAME["this toolkit's"]))
    x = torch.randn(4, WIDTH, 6, 6).contiguous(memory_format=LAST).requires_grad_()
    g = torch.randn(4, WIDTH, 6, 6).contiguous(memory_format=LAST)
    counts, gradients = [], []
    for compute in (shuffle.train(), lambda x: [*results(shuffle._nodes, x)][-1]):
        with Copies() as copies:
            out = compute(x)
            gradients += torch.autograd.grad(out, x, g)
        counts.append(copies.count)
        assert out.is_contiguous(memory_format=LAST)
    assert counts[0] == 2 < counts[1]
    assert torch.equal(*gradients)


def test_a_float_training_has_the_bits_that_it_has_without(monkeypatch: pytest.MonkeyPatch) -> None:
    x, losses = torch.randn(8, 3, 6, 6).contiguous(memory_format=LAST), []
    for found in (shuffles, lambda _: {}):
        monkeypatch.setattr(view, "shuffles", found)
        form = form_of(SAME["this toolkit's"]).train()
        compute, optimizer = View(form), torch.optim.SGD(form.parameters(), 0.1)
        assert any(isinstance(part, Shuffle) for part in compute.modules()) == (found is shuffles)
        for _ in range(3):
            loss = F.cross_entropy(compute(x), torch.arange(8) % 5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:3] == losses[3:]


@pytest.mark.parametrize("spec", ["w8a8", "lsq", "int8", "asymmetric", "binary", "ternary"])
@pytest.mark.parametrize("kind", ["this toolkit's", "ShuffleNet's"])
def test_codes_are_computed_before_it(kind: str, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    form = segments.quantized(Grouped(SAME[kind]), spec)
    compute = View(form)
    [shuffle] = [part for part in compute.modules() if isinstance(part, Shuffle)]
    assert form.get_submodule("second").input_quantizer in [
        m.quantizer for m in compute.modules() if isinstance(m, Segment)
    ]
    read: list[type] = []
    run = QuantConv2d.input_codes

    def codes(layer: QuantConv2d, x: Tensor | Quantized) -> Quantized:
        if layer.groups == 3 and layer.in_channels == WIDTH:
            read.append(type(x))
        return run(layer, x)

    monkeypatch.setattr(QuantConv2d, "input_codes", codes)
    x = torch.randn(16, 3, 12, 12).contiguous(memory_format=LAST)
    with torch.no_grad(), precision.computing("exact"):
        assert torch.equal(compute.eval()(x), form(x))
    other = copy.deepcopy(form).train()
    form.train()
    gradients = []
    for network, run_by in ((form, compute.train()), (other, other)):
        y = run_by(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        weights = ("first.weight", "second.weight", "norm.weight")
        gradients.append([y.detach(), *(network.get_parameter(name).grad for name in weights)])
    for one, same in zip(*gradients, strict=True):
        torch.testing.assert_close(one, same, rtol=1e-2, atol=1e-3)
    assert read == [Quantized, Tensor] * 2
    assert shuffle.training


def test_codes_that_something_else_reads_stay_behind_it() -> None:
    class Twice(Grouped):
        def forward(self, x: Tensor) -> Tensor:
            x = self.move(self.norm(self.first(x)).relu())
            return self.last(self.after(self.second(x)).relu() + x).mean((2, 3))

    form = segments.quantized(Twice(SAME["this toolkit's"]), "w8a8")
    compute, x = View(form), torch.randn(4, 3, 12, 12).contiguous(memory_format=LAST)
    assert form.get_submodule("second").input_quantizer not in [
        m.quantizer for m in compute.modules() if isinstance(m, Segment)
    ]
    with torch.no_grad(), precision.computing("exact"):
        assert torch.equal(compute.eval()(x), form(x))


def test_on_a_gpu_the_networks_own_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    form = form_of(SAME["this toolkit's"])
    assert len(shuffles(form)) == 1
    on_gpu = (torch.float32, torch.device("cuda"))
    monkeypatch.setattr("models.fused.shuffles.type_and_device", lambda _: on_gpu)
    assert shuffles(form) == {}
