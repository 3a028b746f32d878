"""Merging works for every possible batch norm: dead, negative, without variance, with any eps and momentum, still in training.

tests/bn_merge checks that merged networks with ordinary statistics equal the unmerged ones, and the contents of their files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Merge, Quantize
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, UserError
from models.layers.quantizers.base import Quantizer
from models.layers.quantizers.binary import BinaryActivation
from quant.placement import reads_sums
from quant.prepare import prepare
from quant.quantizer_spec import quantizer
from quant.restore import restore
from quant.spec import QuantSpec, affine_spec
from tests.tools.networks import ends, form
from tests.tools.residual import ARCH

CFGS = {
    "nin": [8] * 8,
    "nin_gc": [2, 4, 16, 32, 8, 32, 32, 8],  # groups
    "slimming": [8, 12, 16],  # convolutions without a bias
    "separable": [4, 4, 8, 8, 8, 16, 16, 16],  # depthwise convolutions without a batch norm after them
    ARCH: [8, 12, 10],
}
SPECS = {
    "float": QuantSpec(),
    "w8a8": QuantSpec(quantizer(8), quantizer(8)),
    "wta4": QuantSpec(quantizer("t"), quantizer(4)),
    "wbab": QuantSpec(quantizer("b"), quantizer("b"), order="bacp"),
    "wbab cbap": QuantSpec(quantizer("b"), quantizer("b")),
    "int8": affine_spec(8, 8, 1, False),
    "int8 folded": affine_spec(8, 8, 0, True),
}

Edit = Callable[[nn.BatchNorm2d], None]


def _gamma(value: float | None, first: int, step: int = 4) -> Edit:
    """Set every `step`-th gamma, from the `first` on, to `value`; None: make it negative."""

    def edit(norm: nn.BatchNorm2d) -> None:
        part = norm.weight.data[first::step]
        norm.weight.data[first::step] = -part.abs() if value is None else value

    return edit


def _var(value: float) -> Edit:
    def edit(norm: nn.BatchNorm2d) -> None:
        norm.running_var[3::4] = value

    return edit


def _set(name: str, value: float | None) -> Edit:
    return lambda norm: setattr(norm, name, value)


NORMS: dict[str, tuple[Edit, ...]] = {
    "gamma 0 and below 0, var 0, eps 0.1": (_gamma(0.0, 0), _gamma(None, 1), _var(0.0), _set("eps", 0.1)),
    "gamma 1e-38 and -1e-38, var 1e4, momentum None": (
        _gamma(1e-38, 0), _gamma(-1e-38, 1), _var(1e4), _set("momentum", None),
    ),
    "every gamma below 0, var 1e-30, eps 1e-4": (_gamma(None, 0, 1), _var(1e-30), _set("eps", 1e-4)),
    "gamma 0 and below 0, var 1e-30, eps 1e-12, momentum 1": (
        _gamma(0.0, 0), _gamma(None, 3), _var(1e-30), _set("eps", 1e-12), _set("momentum", 1.0),
    ),
}  # fmt: skip


def pictures(seed: int = 1, count: int = 16) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_stored(arch: str, spec: QuantSpec) -> QuantSpec:
    """Return the spec as this network's file holds it."""
    model = form(arch, CFGS[arch])
    return spec.at_ends(*ends(model), reads_sums(model))


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def prepared(arch: str, spec: QuantSpec, edits: tuple[Edit, ...] = ()) -> nn.Module:
    """Return a network in float64 and training mode, whose BNs have statistics of their inputs, changed by the edits."""
    torch.manual_seed(0)
    model = form(arch, CFGS[arch]).double()
    model = prepare(model, as_stored(arch, spec)).train()
    for norm in norms(model):
        norm.weight.data.uniform_(2, 6)
        norm.bias.data.normal_(0.5)
    for when in ("before", "after"):  # before: so that later layers see the result; after: so that it persists
        for norm in norms(model):
            for edit in edits:
                edit(norm)
        if when == "before":
            for norm in norms(model):
                norm.momentum = 0.9
            for seed in (2, 3):
                model(pictures(seed))
    return model.train()


def assert_close(found: Tensor, expected: Tensor, bound: float) -> None:
    assert torch.isfinite(found).all()
    assert (found - expected).abs().max() <= bound * expected.abs().max()


EVERY_KIND = ("nin", ARCH)
"""Networks tested with all SPECS in the fast tests; others are tested with those of OFTEN."""
OFTEN = ("float", "wbab", "int8 folded")


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "arch"),
    [
        pytest.param(kind, arch, marks=() if arch in EVERY_KIND or kind in OFTEN else pytest.mark.slow)
        for kind, arch in product(SPECS, CFGS)
    ],
)
def test_whatever_the_batch_norm_holds(kind: str, arch: str) -> None:
    """G7: 1e-12 of the largest output in float64 (1e-5 in float32, if no code can change)."""
    alive = 0
    for what, edits in NORMS.items():
        model = prepared(arch, SPECS[kind], edits)
        merged = merge(model)
        assert model.training, what
        assert not any(module.training for module in merged.modules()), what
        assert not norms(merged), what
        assert all(torch.isfinite(value).all() for value in merged.state_dict().values()), what
        x = pictures(4)
        expected = model.eval()(x)
        assert_close(merged(x), expected, 1e-12)
        alive += bool(expected.std(0).max() > 1e-3 * expected.abs().max())
        if kind == "float" and expected.abs().max() < 1e6:  # for larger outputs float32 itself has larger errors
            single = merge(model.float())
            assert_close(single(x.float()), model(x.float()), 1e-5)
    one_sided = arch == ARCH and kind.startswith("wbab")  # its binary inputs come from ReLUs: +1 and nothing else
    assert alive >= 2 or one_sided  # otherwise the comparison shows nothing


def signs(model: nn.Module) -> dict[str, Tensor]:
    """Return a dict that the next forward pass fills with the binary codes of each quantizer."""
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, BinaryActivation):
            module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.codes}))
    return seen


@torch.no_grad()
@pytest.mark.parametrize("arch", ["nin", "nin_gc", "slimming", "separable"])
@pytest.mark.parametrize("order", ["cbap", "bacp"])
def test_every_sign_is_the_same(order: str, arch: str) -> None:
    """G7: 100 % of the codes of every layer are equal, for gammas of 0, negative and tiny gammas."""
    for what, edits in NORMS.items():
        model = prepared(arch, replace(SPECS["wbab"], order=order), edits).eval()
        merged = merge(model)
        before, after = signs(model), signs(merged)
        model(pictures(5))
        merged(pictures(5))
        assert len(before) > (0 if arch == "slimming" else 6)
        for name, codes in before.items():
            assert torch.equal(after[name], codes), f"{what}: {name}"


@pytest.mark.parametrize("kind", SPECS)
def test_what_training_leaves_is_merged_as_evaluation_does_it(kind: str) -> None:
    """G8: a network in training mode is merged with its running statistics, not a batch's, and does not change."""
    model = prepared("nin", SPECS[kind], (_gamma(None, 1),))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    one, other = merge(model), merge(model.eval())
    assert torch.equal(one(pictures()), other(pictures()))
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", SPECS)
def test_merging_twice_is_refused(kind: str) -> None:
    """G8."""
    merged = merge(prepared("nin", SPECS[kind]))
    with pytest.raises(UserError, match="already merged") as fault:
        merge(merged)
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize("what", NORMS)
def test_a_file_of_it_is_finite_and_reads_back(what: str, tmp_path: Path) -> None:
    """The reader would refuse an infinite threshold."""
    info = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)
    for arch, spec in (("nin", SPECS["wbab"]), ("nin", SPECS["wta4"]), ("separable", SPECS["w8a8"])):
        merged = merge(prepared(arch, spec, NORMS[what]).float())
        spec = as_stored(arch, spec)
        stages = (Quantize(spec=spec.to_dict()), Merge())
        more = {"classes": 10, **form(arch, CFGS[arch]).arch_args}
        content = checkpoint.make(merged, arch, more, info, Metrics(1.0), stages, Origin(("x",), 1))
        path = tmp_path / f"{spec.name}.pth"
        checkpoint.save(path, content)
        again = restore(checkpoint.load(path)).eval()
        assert torch.equal(again(pictures().float()), merged(pictures().float()))


def test_the_zero_weight_filter_of_a_binary_layer_is_a_constant_channel() -> None:
    """Its scale is 0, so its BN sees one value, which is on one side of the threshold for any input."""
    model = prepared("nin", SPECS["wbab"]).eval()
    with torch.no_grad():
        model.block4.conv.weight[::2] = 0
    merged = merge(model)
    quantizer_of: Quantizer = merged.block5.conv.input_quantizer
    assert isinstance(quantizer_of, BinaryActivation)
    before, after = signs(model), signs(merged)
    model(pictures())
    merged(pictures())
    codes = after["block5.conv.input_quantizer"][:, ::2]
    assert torch.equal(codes, before["block5.conv.input_quantizer"][:, ::2])
    assert all(len(channel.unique()) == 1 for channel in codes.transpose(0, 1))
