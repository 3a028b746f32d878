"""Code that computes for each channel by itself: stacked branches, kernels in buffers, divisions, variances. It is cut exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.graph.capture.form import capture
from prune.computed import computed_channels
from tests.tools.between import SIZE, WIDTH, Code, cut_exactly, disturbed, reasons
from tests.tools.cases import conv_bn

SMOOTH = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])).view(1, 1, 3, 3) / 16


def maps(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of each map."""
    return x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True)


def both(net: Code, x: Tensor, axis: int) -> Tensor:
    return torch.stack([net.a(x), net.b(x)], axis)


def summed(net: Code, x: Tensor) -> Tensor:
    return both(net, x, 1).sum(1) + both(net, x, 0).mean(0) + both(net, x, 2).max(2)[0]


def selected(net: Code, x: Tensor) -> Tensor:
    """Weigh branches for each channel (SKNet, arXiv 1903.06586)."""
    branches = both(net, x, 1)
    shares = net.fc2(F.relu(net.fc1(branches.sum(1).mean((2, 3), keepdim=True))))
    return (branches * shares.view(x.shape[0], 2, -1, 1, 1).softmax(1)).sum(1)


def split(net: Code, x: Tensor) -> Tensor:
    """Weigh the halves of a grouped convolution's output (ResNeSt, arXiv 2004.08955)."""
    halves = net.wide(x)
    halves = halves.reshape(x.shape[0], 2, halves.shape[1] // 2, *x.shape[2:])
    shares = net.fc2(F.relu(net.fc1(halves.sum(1).mean((2, 3), keepdim=True))))
    shares = shares.view(x.shape[0], 1, 2, -1).transpose(1, 2).softmax(1).reshape(x.shape[0], 2, -1, 1, 1)
    return (halves * shares).sum(1)


def blurred(net: Code, x: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), net.kernel, stride=2, groups=x.shape[1])


def blurred_alike(net: Code, x: Tensor) -> Tensor:
    x = F.conv2d(x, net.kernel.repeat(x.shape[1], 1, 1, 1), padding=1, groups=x.shape[1])
    return F.conv2d(x, net.kernel.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])


def simam(net: Code, x: Tensor) -> Tensor:
    """Weigh each number by its distance from its map's mean (SimAM, ICML 2021)."""
    far = (x - x.mean((2, 3), keepdim=True)).square()
    return x * torch.sigmoid(far / (4 * (far.sum((2, 3), keepdim=True) / (x[0, 0].numel() - 1) + 1e-4)) + 0.5)


def softsign(net: Code, x: Tensor) -> Tensor:
    return x / (1 + x.abs()) + x * torch.reciprocal(1 + x.square())


def standardised(net: Code, x: Tensor) -> Tensor:
    mean, var = maps(x)
    other = torch.std_mean(x, (2, 3), keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-5) + (x - other[1]) / (other[0] + 0.1)


def by_response(net: Code, x: Tensor) -> Tensor:
    return x * x.norm(dim=(2, 3), keepdim=True) + x.flatten(2).std(2, False)[..., None, None]


def normalised(net: Code, x: Tensor) -> Tensor:
    """Scale to length 1 over channels (SSD, arXiv 1512.02325)."""
    return net.scale.view(1, -1, 1, 1) * F.normalize(x) + net.scale.view(1, -1, 1, 1).expand_as(x) * x


def shares(net: Code, x: Tensor) -> Tensor:
    return x / (1 + x.square().sum(1, keepdim=True).sqrt())


def mixed(net: Code, x: Tensor) -> Tensor:
    return torch.lerp(net.a(x), net.b(x), torch.sigmoid(x)) + torch.lerp(x, net.a(x), torch.sigmoid(net.map(x)))


def shuffled(net: Code, x: Tensor) -> Tensor:
    return F.relu(x).index_select(1, torch.arange(x.shape[1]).view(2, -1).t().flatten())


def two() -> dict[str, nn.Module]:
    return {"a": conv_bn(WIDTH, WIDTH), "b": conv_bn(WIDTH, WIDTH)}


def attention() -> dict[str, nn.Module]:
    return {"fc1": nn.Conv2d(WIDTH, 4, 1), "fc2": nn.Conv2d(4, 2 * WIDTH, 1)}


def wide() -> nn.Module:
    return nn.Sequential(nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1, groups=2), nn.BatchNorm2d(2 * WIDTH), nn.ReLU())


def kernels() -> Tensor:
    """Return a kernel for each channel, all different."""
    return SMOOTH * torch.linspace(0.5, 2, WIDTH).view(-1, 1, 1, 1)


NETWORKS: dict[str, Callable[[], Code]] = {
    "summed": lambda: Code(summed, **two()),
    "selected": lambda: Code(selected, **two(), **attention()),
    "split": lambda: Code(split, wide=wide(), **attention()),
    "blurred": lambda: Code(blurred, stored={"kernel": kernels()}),
    "blurred_alike": lambda: Code(blurred_alike, stored={"kernel": SMOOTH}),
    **{run.__name__: (lambda run=run: Code(run)) for run in (simam, softsign, standardised, by_response, shares)},
    "normalised": lambda: Code(normalised, scale=nn.Parameter(torch.linspace(1, 3, WIDTH))),
    "mixed": lambda: Code(mixed, **two(), map=conv_bn(WIDTH, 1)),
    "shuffled": lambda: Code(shuffled),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_cut_exactly_and_reopened_as_it_was_stored(name: str) -> None:
    torch.manual_seed(0)
    net = disturbed(NETWORKS[name]())
    small = cut_exactly(net, name, 0.6)
    made = {key for key, part in net.named_modules() if isinstance(part, nn.Conv2d) and part.out_channels > 1}
    whole = {key for key in made if len(small.get_submodule(key).weight) == len(net.get_submodule(key).weight)}
    assert whole <= {"fc1"}  # no batch norm scales its channels


STAYS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "0 / 0": (lambda net, x: x / x.std((2, 3), keepdim=True), "read by div"),
    "by what may be 0": (lambda net, x: x / (net.a(x).abs() + net.map(x) + 1), "read by div"),
    "by what may be 0, expanded": (lambda net, x: x / (net.a(x).abs() + net.map(x).expand_as(x) + 1), "read by div"),
    "a constant by 0": (lambda net, x: (x + 1) / x, "read by div"),
    "a root below": (lambda net, x: x * x.square().pow(-0.5), "not finite when masked: pow"),
    "a logarithm": (lambda net, x: x * torch.log(x.abs()), "not finite when masked: log"),
    "a logarithm of what training changes": (lambda net, x: x * torch.log(x.abs() + net.scale), "read by log"),
    "a sum of gates": (lambda net, x: x / torch.sigmoid(x).sum(1, keepdim=True), "not 0 when masked, read by sum"),
    "a mean over channels": (lambda net, x: x - x.mean(1, keepdim=True), "read by mean"),
    "a mean by hand": (lambda net, x: x / (x.abs().sum(1, keepdim=True) / x.shape[1]), "read by sum"),
    "a deviation over channels": (lambda net, x: x / (1 + x.std(1, keepdim=True)), "read by std"),
    "one kernel for each, in no file": (lambda net, x: F.conv2d(x, net.kernel, groups=x.shape[1]), "read by conv2d"),
    "kernels computed from others": (
        lambda net, x: F.conv2d(x, net.kernel * net.kernel.sum(), groups=x.shape[1]),
        "read by conv2d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_exact_stays(name: str) -> None:
    run, why = STAYS[name]
    parts = {"map": conv_bn(WIDTH, 1), "scale": nn.Parameter(torch.ones(())), "kernel": kernels()}
    assert reasons(capture(Code(run, **two(), **parts).eval(), (3, SIZE, SIZE), name), "first.0.weight") == {why}


def test_a_number_of_groups_in_the_code_keeps_its_channels() -> None:
    """The rule allows a cut, and no narrower copy runs."""
    torch.manual_seed(0)
    net = Code(lambda net, x: F.conv2d(x, net.kernel, groups=WIDTH), stored={"kernel": kernels()})
    small = cut_exactly(disturbed(net), "groups")
    assert len(small.get_submodule("first.0").weight) == WIDTH
    assert len(small.get_submodule("second.0").weight) < WIDTH


def test_a_blur_makes_no_channels() -> None:
    assert computed_channels(capture(NETWORKS["blurred"]().eval(), (3, SIZE, SIZE), "blurred")) == {}
