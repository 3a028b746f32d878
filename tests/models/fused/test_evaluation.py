"""A view gives its network's bits in evaluation, whatever the network is: memory formats, NaN, hooks, errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.errors import UserError
from models.fused.view import View, evaluating
from models.layers.quantizers import dorefa
from models.layers.quantizers.base import Quantized
from quant.spec import uniform
from tests.tools.segments import form_of, formed

MEMORY: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x,
    "contiguous": lambda x: x.contiguous(),
    "slice": lambda x: x[:, :8],
    "crop": lambda x: x[:, :, 1:-1, 1:-1],
    "stride": lambda x: x[:, :, ::2, ::2],
    "transpose": lambda x: x.transpose(2, 3),
    "shuffle": lambda x: x.unflatten(1, (2, 8)).transpose(1, 2).flatten(1, 2),
    "1x1": lambda x: x.mean((2, 3), keepdim=True),
}


class Laid(nn.Module):
    """A norm and layers behind a value that lies in memory in some way."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, width = name, 8 if name == "slice" else 16
        self.stem, self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.norm, self.a, self.na = nn.BatchNorm2d(width), nn.Conv2d(width, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.b, self.nb, self.fc = nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(MEMORY[self.name](self.first(self.stem(x)).relu())).relu()
        return self.fc(self.nb(self.b(self.na(self.a(x)).relu())).relu().mean((2, 3)))


@pytest.mark.usefixtures("as_torch", "judging")
@pytest.mark.parametrize("weights", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("bits", [(8, 8), (8, 32), (32, 8), None], ids=str)
@pytest.mark.parametrize("name", MEMORY)
def test_the_bits_are_the_same_however_values_lie_in_memory(
    name: str, bits: tuple[int, int] | None, weights: torch.memory_format
) -> None:
    form = formed(Laid(name), None if bits is None else uniform("dorefa", *bits)).to(memory_format=weights)
    x = torch.randn(7, 3, 12, 12)
    quick = View(form).eval()
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(quick(given), form(given))


@pytest.mark.usefixtures("as_torch", "judging")
@pytest.mark.parametrize("before", ["1x1", "shuffle of 1x1", "pool to 1x1"])
@pytest.mark.parametrize("pictures", [1, 2, 16, 128])
def test_the_bits_behind_maps_of_one_place_are_the_same(before: str, pictures: int) -> None:
    """Strides of such maps differ though all are called channels last, and a group norm adds in the order of strides."""

    class Few(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1, groups=2)
            self.norm, self.pool, self.group = nn.BatchNorm2d(16), nn.MaxPool2d(12), nn.GroupNorm(4, 16)
            self.deep, self.last = nn.Conv2d(16, 16, 1, groups=16), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x) if "pool" in before else self.stem(x).mean((2, 3), keepdim=True)
            x = self.norm(self.conv(x)).relu()
            x = self.pool(x) if "pool" in before else x
            x = MEMORY["shuffle"](x) if "shuffle" in before else x
            return self.last(self.deep(self.group(x)).flatten(1))

    form = formed(Few(), None)
    x = torch.randn(pictures, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    assert torch.equal(View(form).eval()(x), form(x))


@pytest.mark.usefixtures("as_torch", "judging")
@pytest.mark.parametrize("spec", ["w8a8", "int8", "asymmetric"])
def test_what_is_no_number_spreads_as_in_the_network(spec: str) -> None:
    form, x = form_of(spec), torch.randn(4, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    form.get_submodule("na").bias.data[3] = math.nan
    x[1, 0, 2, 2] = math.inf
    assert torch.allclose(View(form).eval()(x), form(x), rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("as_torch", "judging")
def test_no_pictures_have_no_answers() -> None:
    form = form_of("w8a8")
    assert View(form).eval()(torch.zeros(0, 3, 12, 12)).shape == form(torch.zeros(0, 3, 12, 12)).shape == (0, 5)


@pytest.mark.usefixtures("as_torch", "judging")
def test_autocast_is_computed_by_the_modules() -> None:
    form, x = form_of("int8"), torch.randn(4, 3, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(View(form).eval()(x), form(x))


@pytest.mark.usefixtures("as_torch", "judging")
def test_hooks_and_own_forwards_of_modules_are_run() -> None:
    x = torch.randn(4, 3, 12, 12)
    form = form_of("w8a8")
    form.get_submodule("a2").register_forward_pre_hook(lambda _, given: (given[0] * 0.5,))
    assert torch.equal(View(form).eval()(x), form(x))
    form = form_of("w8a8")
    norm = form.get_submodule("na")
    norm.forward = lambda y: 2 * nn.BatchNorm2d.forward(norm, y)
    assert torch.equal(View(form).eval()(x), form(x))
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert evaluating(form_of("w8a8"), 10**9, 50) is None
    finally:
        hook.remove()


class Halved(dorefa.DorefaActivation):
    """A quantizer that inherits a rule which is not its own."""

    def forward(self, x: Tensor) -> Quantized:
        return super().forward(x / 2)


@pytest.mark.usefixtures("as_torch", "judging")
def test_a_rule_holds_for_the_class_that_computes_it() -> None:
    form, x = form_of("w8a8"), torch.randn(4, 3, 12, 12)
    form.get_submodule("a2").input_quantizer = Halved(8).eval()
    assert torch.equal(View(form).eval()(x), form(x))


def test_an_error_in_a_module_keeps_its_words() -> None:
    form = form_of("w8a8").train()
    form.get_submodule("na").forward = refusing
    with pytest.raises(UserError) as plain:
        form(torch.randn(2, 3, 12, 12))
    with pytest.raises(UserError) as viewed:
        View(form)(torch.randn(2, 3, 12, 12))
    assert str(viewed.value) == str(plain.value)


def refusing(_: Tensor) -> Tensor:
    raise UserError("no", "do not")
