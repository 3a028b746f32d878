"""Classes of channels: which channels are tied, and which cannot be pruned and why, in networks solved by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from models.graph.capture.form import capture
from models.graph.channels.classes import Channels, channels, gates
from models.networks import nin
from tests.tools import cases
from tests.tools.odd_networks import Bare


def of(model: nn.Module, size: int = 32) -> Channels:
    return channels(capture(model, (3, size, size), "net"))


def classes(found: Channels, tensor: str, axis: int = 0) -> list[int]:
    return next(p.classes.tolist() for p in found.places if (p.tensor, p.axis) == (tensor, axis))


def reasons(found: Channels, tensor: str, axis: int = 0) -> set[str]:
    return {found.fixed[cls] for cls in classes(found, tensor, axis) if cls in found.fixed}


def test_channels_that_mix_with_others_do_not_fix_the_rest() -> None:
    """A layer reads pixels that were channels, which stay, and plain channels, which can be cut."""
    torch.manual_seed(0)
    made = Bare(
        lambda net, x: net.next(torch.cat([nn.functional.pixel_shuffle(net.fine(x), 2), net.plain(x)], 1)),
        fine=nn.Sequential(nn.Conv2d(6, 16, 1, 2), nn.BatchNorm2d(16)),
        plain=nn.Sequential(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8)),
        next=nn.Conv2d(12, 6, 1),
    )
    form = capture(made.eval(), (3, 16, 16), "a test")
    found = channels(form)
    rows = {p.tensor: p.classes.tolist() for p in found.places if p.rows and p.axis == 0}
    assert all(cls in found.fixed for cls in rows["fine.0.weight"])
    assert not any(cls in found.fixed for cls in rows["plain.0.weight"])
    made.next = nn.Conv2d(12, 6, 1, groups=3)  # its groups stay equal, and the first holds pixels alone
    found = channels(capture(made.eval(), (3, 16, 16), "a test"))
    rows = {p.tensor: p.classes.tolist() for p in found.places if p.rows and p.axis == 0}
    assert all(cls in found.fixed for name in ("fine", "plain") for cls in rows[f"{name}.0.weight"])


def test_a_plain_chain_has_one_class_for_each_channel() -> None:
    found = of(models.build("nin"))
    for number in range(1, 9):
        rows = classes(found, f"block{number}.conv.weight")
        assert len(set(rows)) == len(rows) == nin.CFG[number - 1]
        for name in ("conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
            assert classes(found, f"block{number}.{name}") == rows
        assert classes(found, f"block{number + 1}.conv.weight", 1) == rows
        assert not reasons(found, f"block{number}.conv.weight")
    assert reasons(found, "block9.conv.weight") == {"the network's answer"}
    assert reasons(found, "block1.conv.weight", 1) == {"the picture's own"}


def test_a_stream_goes_together() -> None:
    found = of(cases.Residual())
    assert classes(found, "stem.0.weight") == classes(found, "c2.weight") == classes(found, "n2.bias")
    assert classes(found, "c1.weight", 1) == classes(found, "c3.weight", 1) == classes(found, "stem.0.weight")
    assert classes(found, "short.0.weight") == classes(found, "c3.weight") == classes(found, "head.fc.weight", 1)


def test_columns_go_with_what_is_laid_side_by_side() -> None:
    found = of(cases.Concatenation())
    both = [*classes(found, "a.0.weight"), *classes(found, "c.0.weight")]
    assert classes(found, "mix.weight", 1) == classes(found, "pre.weight") == both
    found = of(cases.flatten_linear())
    columns = classes(found, "7.weight", 1)
    assert columns == [cls for cls in classes(found, "4.0.weight") for _ in range(16)]
    assert classes(found, "8.weight") == classes(found, "7.weight")  # a batch norm after a linear layer


def test_gates_and_slopes_go_with_what_they_scale() -> None:
    found = of(cases.SqueezeExcite())
    assert classes(found, "fc2.weight") == classes(found, "a.0.weight") == classes(found, "fc1.weight", 1)
    found = of(cases.prelu())
    assert classes(found, "0.2.weight") == classes(found, "0.0.weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_slope_for_all_channels_has_the_type_of_the_network(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(), nn.Conv2d(4, 2, 1)).to(dtype)
    assert not reasons(of(net, 4), "0.weight")


def test_a_depthwise_layer_passes_its_channels_on() -> None:
    found = of(cases.mobilenet_v1())
    assert classes(found, "1.0.weight") == classes(found, "0.0.weight") == classes(found, "2.0.weight", 1)
    wide = of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.Flatten(), nn.Linear(72, 2)), 5)
    assert classes(wide, "1.weight") == [cls for cls in classes(wide, "0.weight") for _ in range(2)]
    (rows,) = (p.channels.tolist() for p in wide.places if (p.tensor, p.axis) == ("1.weight", 0))
    assert len(set(rows)) == 8  # two channels of one class are still two channels


def test_rows_of_a_transposed_convolution_lie_on_its_second_axis() -> None:
    found = of(cases.Transposed())
    assert classes(found, "up.weight", 1) == classes(found, "up.bias") == classes(found, "norm.weight")
    assert classes(found, "up.weight", 0) == classes(found, "down.0.weight")


def test_an_entry_of_a_grouped_transposed_convolution_makes_a_channel_in_every_group() -> None:
    up = nn.ConvTranspose2d(6, 4, 2, groups=2)
    found = of(nn.Sequential(nn.Conv2d(3, 6, 1), up, nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), 4)
    assert classes(found, "1.weight", 0) == classes(found, "0.weight")
    assert classes(found, "1.bias") == 2 * classes(found, "1.weight", 1) == classes(found, "2.weight")
    assert not reasons(found, "0.weight") | reasons(found, "1.bias")


def test_a_layer_in_two_places_reads_and_writes_the_same_channels() -> None:
    found = of(cases.SharedConv())
    assert classes(found, "conv.weight") == classes(found, "conv.weight", 1) == classes(found, "stem.0.weight")
    assert classes(found, "bn1.weight") == classes(found, "bn2.weight") == classes(found, "conv.weight")


def scaled(net: nn.Module, x: Tensor) -> Tensor:
    return net.next(x * net.scale + net.shift)


@pytest.mark.parametrize(
    "laid",
    [
        lambda scale: scale.view(1, -1, 1, 1),
        lambda scale: scale.reshape(-1, 1, 1),
        lambda scale: scale[:, None, None],
        lambda scale: scale.unsqueeze(0).unsqueeze(2).unsqueeze(3).squeeze(0),
    ],
)
def test_a_scale_that_the_code_lays_out_has_rows_too(laid: Callable[[Tensor], Tensor]) -> None:
    """timm's ConvNeXt has such a layer scale: gamma with one axis, viewed as (1, C, 1, 1)."""
    own = Bare(lambda net, x: net.next(x * laid(net.scale)), next=nn.Conv2d(6, 6, 1), scale=nn.Parameter(torch.rand(6)))
    found = of(own, 16)
    assert classes(found, "scale") == classes(found, "stem.weight") == classes(found, "next.weight", 1)
    assert not reasons(found, "stem.weight")


def test_a_scale_of_other_axes_than_its_tensor_stays() -> None:
    own = Bare(
        lambda net, x: net.next(x * net.scale.reshape(6, 1, 1)),
        next=nn.Conv2d(6, 6, 1),
        scale=nn.Parameter(torch.rand(2, 3)),
    )
    assert len(reasons(of(own, 16), "stem.weight")) == 1


def test_scales_and_shifts_of_the_network_are_rows() -> None:
    parts = {"scale": nn.Parameter(torch.rand(6, 1, 1)), "shift": nn.Parameter(torch.rand(1, 6, 1, 1))}
    found = of(Bare(scaled, next=nn.Conv2d(6, 6, 1), **parts), 16)
    rows = classes(found, "stem.weight")
    assert classes(found, "scale") == rows == classes(found, "shift", 1) == classes(found, "next.weight", 1)
    assert not reasons(found, "stem.weight")


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (lambda net, x: net.next(torch.sigmoid(x)), "not 0 when masked, read by next"),
        (lambda net, x: net.next(x + 1), "not 0 when masked, read by next"),
        (lambda net, x: net.next(F.pad(x, (1, 1, 1, 1), value=2.0)), "not 0 when masked, read by next"),
        (lambda net, x: net.next(x.softmax(1)), "read by softmax"),
        (lambda net, x: net.next(F.layer_norm(x, x.shape[1:])), "read by layer_norm"),
        (lambda net, x: net.next(x - x.logsumexp(1, keepdim=True)), "read by logsumexp"),
        (lambda net, x: net.next(x + x.sum(1, keepdim=True)), "read by sum"),
        (lambda net, x: net.next(x * torch.arange(6.0)[:, None, None]), "combined with a constant for each channel: mul"),
        (lambda net, x: net.next(x + torch.cat([x[:, :3], x.new_zeros(x.shape[0], 3, 16, 16)], 1)), "joined with a value that is not a channel"),
        (lambda net, x: net.next(x.reshape(x.shape[0], 16, 6, 16).transpose(1, 2)), "mixed with other axes: next"),
        (lambda net, x: net.next(x.cumsum(1)), "read by cumsum"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_says_why(run: object, why: str) -> None:
    found = of(Bare(run, next=nn.Conv2d(6, 6, 1)), 16)
    assert len(reasons(found, "stem.weight")) == 1
    assert next(iter(reasons(found, "stem.weight"))).startswith(why), reasons(found, "stem.weight")


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: net.next(x * torch.sigmoid(x)),
        lambda net, x: net.next(F.pad(x, (1, 1, 1, 1), value=0.0)),
        lambda net, x: net.next(F.pad(x, (1, 1, 1, 1), mode="reflect")),
        lambda net, x: net.next(x / 2 - 0.5 * x),
        lambda net, x: net.next(x.flatten(2).softmax(2).view_as(x) * x),
        lambda net, x: net.next(torch.maximum(x, -x).clamp(0, 1).square()),
        lambda net, x: net.next(F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")),
        lambda net, x: net.next(F.pixel_unshuffle(x[:, :4], 2).repeat(1, 2, 1, 1)[:, :6]) + 0 * x[:, :, :8, :8],
        lambda net, x: net.next(torch.stack([x, x], 2).flatten(1, 2)[:, ::2]),
        lambda net, x: net.next(x[:, [0, 1, 2, 3, 4, 5]]),
    ],
)
def test_what_can_be_cut(run: object) -> None:
    found = of(Bare(run, next=nn.Conv2d(6, 6, 1)), 16)
    assert not reasons(found, "stem.weight")


def test_one_map_laid_over_all_channels_stays() -> None:
    found = of(
        Bare(lambda net, x: net.next(x * torch.sigmoid(net.map(x))), map=nn.Conv2d(6, 1, 1), next=nn.Conv2d(6, 6, 1)),
        16,
    )
    assert not reasons(found, "stem.weight")
    assert reasons(found, "map.weight") == {"broadcast over several channels: mul"}


def test_groups_are_parts_that_stay_equal() -> None:
    found = of(models.build("nin_gc"))
    groups = {place.tensor: place.groups for place in found.places if not place.rows}
    assert groups["block4.conv.weight"] == 16
    assert Counter(groups.values())[1] == 2  # the first and the last layer
    assert not found.whole
    assert of(models.build("separable_wide")).whole == {f"block{number}.conv1" for number in range(2, 9)}


def test_gates_are_found_anew_after_a_norm_is_replaced() -> None:
    form = capture(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)),
        (3, 8, 8),
        "net",
    )
    assert [name for name, _ in gates(form)] == ["1", "3"]
    form.replace("1", nn.Identity())
    assert [name for name, _ in gates(form)] == ["3"]
    form.replace("3", nn.Identity())
    form.update()
    assert gates(form) == []
