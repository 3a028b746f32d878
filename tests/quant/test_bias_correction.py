"""Bias correction removes the mean error of each channel exactly, and names the layers where it cannot."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engine.errors import USAGE, UserError
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from quant.bias_correction import correct_biases
from quant.calibrate import calibrate
from quant.placement import meet
from quant.prepare import prepare
from quant.spec import QuantSpec, affine_spec
from tests.tools import cases
from tests.tools.examined import with_noise


class Pictures:
    """A split for calibration: some pictures, the same each time."""

    def __init__(self, count: int = 64) -> None:
        self.images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, order: torch.Tensor):
        for part in order.split(size):
            yield self.images[part], torch.zeros(len(part))


def coded(model: nn.Module, bits: int = 3) -> tuple[NormalForm, NormalForm, Pictures]:
    """Return a network, its calibrated form at few bits, and the pictures."""
    torch.manual_seed(0)
    form, split = capture(with_noise(model), (3, 32, 32), "net"), Pictures()
    quantized = prepare(form, meet(affine_spec(bits, 8, 1, True), form))
    calibrate(quantized, split, "minmax", len(split))
    return form, quantized.eval(), split


def outputs(model: nn.Module, name: str, images: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", ["Residual", "mobilenet_v1", "SqueezeExcite"])
def test_every_channel_of_every_layer_has_the_mean_that_it_had(name: str) -> None:
    form, quantized, split = coded(getattr(cases, name)(10))
    before = copy.deepcopy(quantized)
    assert correct_biases(quantized, split, len(split)) == []
    layers = [n for n, m in quantized.named_modules() if hasattr(m, "weight_quantizer")]
    folded = prepare(form, QuantSpec(bn_fold=True))  # float: the norms are not folded
    for layer in layers:
        norm = layer if isinstance(quantized.get_submodule(layer), nn.Linear) else _norm(form, layer)
        meant, was, now = (
            outputs(model, where, split.images)
            for model, where in ((folded, norm), (before, layer), (quantized, layer))
        )
        axes = [axis for axis in range(meant.ndim) if axis != 1]
        size = meant.abs().mean()
        assert (now - meant).mean(axes).abs().max() < 1e-4 * size, layer
    assert (was - meant).mean(axes).abs().max() > 1e-3 * size  # there was an error to correct


def _norm(form: NormalForm, layer: str) -> str:
    from models.graph.chains import chains

    return next((chain.norm for chain in chains(form) if chain.layer == layer), layer)


class NoBias(nn.Module):
    """A convolution without bias or norm, one that runs twice, and a norm after a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 1)
        self.pooled, self.norm, self.head = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), cases.Head(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.stem(x).relu()).relu()).relu()
        return self.head(self.norm(torch.max_pool2d(self.pooled(x), 2)).relu())


def test_what_cannot_take_it_is_named_and_a_norm_behind_a_pool_takes_it() -> None:
    form, quantized, split = coded(NoBias())
    mean = quantized.norm.running_mean.clone()
    assert correct_biases(quantized, split, len(split)) == ["stem", "twice"]
    assert not torch.equal(quantized.norm.running_mean, mean)
    meant, found = (outputs(model, "head.fc", split.images).mean(0) for model in (form, quantized))
    assert (meant - found).abs().max() < 1e-4 * meant.abs().max()


class Tied(nn.Module):
    """Two layers that share a bias, and one whose bias the code itself reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
        self.read, self.head = nn.Conv2d(8, 8, 1), cases.Head(8, 4)
        self.c.bias = self.b.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.c(self.b(self.a(x).relu()).relu()).relu()
        return self.head(self.read(x).relu() * self.read.bias.abs().sum())


def test_a_bias_that_others_read_is_left_alone() -> None:
    form, quantized, split = coded(Tied())
    shared = quantized.b.bias.clone()
    assert correct_biases(quantized, split, len(split)) == ["b", "c"]  # `read` is not quantized: its bias is read
    assert torch.equal(quantized.b.bias, shared)
    meant, found = (outputs(model, "a", split.images).mean((0, 2, 3)) for model in (form, quantized))
    assert (meant - found).abs().max() < 1e-4 * meant.abs().max()


@pytest.mark.parametrize("scaled", [True, False])
def test_a_folded_norm_without_a_bias_takes_the_error_in_its_mean(scaled: bool) -> None:
    """The error is that of gamma z / sigma; the mean is subtracted before both."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=scaled), nn.ReLU(), cases.Head(8, 4))
    nn.init.uniform_(model[1].running_var, 0.01, 0.05)
    if scaled:
        nn.init.uniform_(model[1].weight, 0.5, 2)
        model[1].bias = None
    form = capture(model, (3, 32, 32), "net")
    split = Pictures()
    quantized = prepare(form, meet(affine_spec(3, 8, 1, True), form, ["3.fc"])).eval()
    calibrate(quantized, split, "minmax", len(split))
    before = copy.deepcopy(quantized)
    assert correct_biases(quantized, split, len(split)) == []
    meant, was, now = (outputs(net, "1", split.images).mean((0, 2, 3)) for net in (form, before, quantized))
    assert (was - meant).abs().max() > 1e-3
    assert (now - meant).abs().max() < 1e-5


def test_a_float_network_is_refused() -> None:
    form = capture(cases.Residual(10), (3, 32, 32), "net")
    with pytest.raises(UserError) as fault:
        correct_biases(form, Pictures(), 8)
    assert fault.value.code == USAGE
