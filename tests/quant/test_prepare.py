"""Preparation puts quantizers into a copy of a network and changes nothing else: no name, parameter or exception."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Quantize
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, USAGE, UserError
from models.graph.chains import read_by_sign
from models.graph.flow import module, places
from models.graph.normal import NormalForm
from models.layers.conv_q import QuantConv2d, QuantLinear
from models.layers.quantizers.affine import AffineActivation
from quant.hooks import clip_latent
from quant.placement import reads_sums
from quant.prepare import input_quantizer, prepare
from quant.quantizer_spec import quantizer
from quant.restore import restore
from quant.spec import QuantSpec, affine_spec
from tests.tools.networks import captured, ends, form

CFGS = {"nin": [8] * 8, "nin_gc": [2, 2, 16, 16, 4, 32, 32, 8]}
BITS = (32, 8, 4, 2, "t", "b")
INNER = [f"block{n}" for n in range(2, 9)]


def network(arch: str = "nin") -> NormalForm:
    torch.manual_seed(0)
    return form(arch, CFGS[arch])


def spec_for(model: NormalForm, weight: int | str, activation: int | str, **more) -> QuantSpec:
    return QuantSpec(quantizer(weight), quantizer(activation), sum(ends(model), ()), **more)


def pictures(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", CFGS)
def test_an_all_float_spec_is_the_identity(arch: str) -> None:
    model = network(arch)
    same = prepare(model, QuantSpec())
    assert [(n, type(m)) for n, m in same.named_modules()] == [(n, type(m)) for n, m in model.named_modules()]
    assert torch.equal(same(pictures()), model(pictures()))
    assert torch.equal(same.eval()(pictures()), model.eval()(pictures()))


def in_range(codes: torch.Tensor, bits: int | str) -> bool:
    if bits == 32:
        return True
    if bits == "b":
        return bool((codes.abs() == 1).all())
    if bits == "t":
        return set(codes.unique().tolist()) <= {-1.0, 0.0, 1.0}
    return bool(((codes % 2 == 1) & (codes.abs() < 2**bits)).all())  # odd, from -(2^k - 1) to 2^k - 1


def input_codes(layers: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return a dict that the next forward pass fills with input codes."""
    seen: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        layer.input_quantizer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.codes}))
    return seen


@pytest.mark.parametrize("arch", CFGS)
@pytest.mark.parametrize("weight", BITS)
def test_every_pair_of_bits_gives_legal_codes_and_finite_gradients(weight: int | str, arch: str) -> None:
    original = network(arch)
    for activation in BITS:
        model = prepare(original, spec_for(original, weight, activation))
        layers = {n: m for n, m in model.named_modules() if isinstance(m, (QuantConv2d, QuantLinear))}
        assert list(layers) == ([] if (weight, activation) == (32, 32) else [f"{b}.conv" for b in INNER])
        seen = input_codes(layers)
        model(pictures()).square().sum().backward()
        for name, layer in layers.items():
            codes, _ = layer.weight_codes()
            assert torch.equal(codes, codes.round()) or weight == 32, name
            assert in_range(codes, weight), name
            legal = range(2**activation) if activation in (8, 4, 2) else {"t": (-1, 0, 1), "b": (-1, 1)}.get(activation)
            assert legal is None or set(seen[name].unique().tolist()) <= set(map(float, legal)), name
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("arch", CFGS)
@pytest.mark.parametrize(("weight", "activation"), [(8, 8), ("t", 4), ("b", "b")])
def test_names_stay_so_float_weights_load_and_come_back(arch: str, weight: int | str, activation: int | str) -> None:
    model, other = network(arch), network(arch)
    for tensor in other.state_dict().values():
        tensor.add_(1)
    prepared = prepare(model, spec_for(model, weight, activation))
    assert [n for n, _ in prepared.named_parameters()] == [n for n, _ in model.named_parameters()]
    prepared.load_state_dict(other.state_dict())
    model.load_state_dict(prepared.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert type(prepared.block1.conv) is nn.Conv2d
    assert type(prepared.block9.conv) is nn.Conv2d
    assert prepared.cfg == model.cfg


def test_the_original_is_not_touched() -> None:
    model = network()
    twin = copy.deepcopy(model)
    prepared = prepare(model, spec_for(model, "b", "b", order="bacp", bn_momentum=0.01))
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.zero_()
    prepared(pictures()).sum().backward()
    assert str(model) == str(twin)
    assert str(model.captured.graph) == str(twin.captured.graph)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("activation", BITS)
def test_the_relu_goes_only_where_signed_codes_follow(
    activation: int | str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    prepared = prepare(model, spec_for(model, "b", activation))
    # the readers of blocks 1 to 7 are quantized; the float last layer reads block 8, and block 9 gives the answer
    assert rectified(prepared) == ([8, 9] if activation in ("t", "b") else [*range(1, 10)])
    assert capsys.readouterr().err == ""
    apart = prepare(model, replace(spec_for(model, 8, "b"), exceptions=("block1.conv", "block4.conv", "block9.conv")))
    assert rectified(apart) == [3, 8, 9]


def rectified(model: NormalForm) -> list[int]:
    """Return the blocks whose ReLU runs."""
    return [n for n in range(1, 10) if f"block{n}.act" in places(model)]


@torch.no_grad()
def test_signed_codes_of_a_picture_are_its_signs() -> None:
    prepared = prepare(network(), QuantSpec(quantizer("b"), quantizer("b"), ("block9.conv",)))
    seen = input_codes({"first": prepared.block1.conv})
    prepared(pictures())
    assert torch.equal(seen["first"], torch.where(pictures() < 0, -1.0, 1.0))


@pytest.mark.parametrize(("order", "before"), [("cbap", nn.Conv2d), ("bacp", nn.MaxPool2d)])
def test_order_and_bn_momentum(order: str, before: type[nn.Module]) -> None:
    model = network()
    prepared = prepare(model, spec_for(model, "b", "b", order=order, bn_momentum=0.01))
    for number in (3, 6):  # the blocks with a pool
        (norm,) = places(prepared)[f"block{number}.bn"]
        assert isinstance(module(prepared, norm.args[0]), before)
    assert len([n for n in places(prepared) if n.endswith(".pool")]) == 2
    assert {m.momentum for m in prepared.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}


def test_an_unknown_exception_is_refused() -> None:
    spec = QuantSpec(quantizer(8), quantizer(8), ("block1.conv", "block10.conv"))
    for unknown in (
        spec,
        replace(spec, exceptions=(), float_inputs=("block10.conv",)),
        replace(spec, exceptions=(), measured_inputs=("block10.conv",)),
    ):
        with pytest.raises(UserError, match=r"no layer is called block10\.conv") as fault:
            prepare(network(), unknown)
        assert fault.value.code == USAGE
        assert "block9.conv" in fault.value.hint


@pytest.mark.parametrize("field", ["exceptions", "float_inputs", "measured_inputs"])
def test_a_file_that_names_an_unknown_layer_is_refused(field: str) -> None:
    model = network()
    spec = replace(spec_for(model, 4, 4), **{field: ("block10.conv",)})
    info = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)
    stages = (Quantize(spec=spec.to_dict()),)
    content = checkpoint.make(model, "nin", {"classes": 10}, info, Metrics(1.0), stages, Origin(("x",), 1))
    with pytest.raises(UserError, match=r"does not fit its network: no layer is called block10\.conv") as fault:
        restore(content)
    assert fault.value.code == BAD_CHECKPOINT


PAIRS = tuple(f"block{n}.conv" for n in range(2, 9))


@pytest.mark.parametrize(("activation", "highest"), [(8, 255), (4, 15), (2, 3), ("t", None), ("b", None), (32, None)])
def test_between_the_halves_of_a_depthwise_pair_the_range_is_measured(
    activation: int | str, highest: int | None
) -> None:
    """DoReFa would clip negative values there and round the rest to 0, because they are not scaled to its range."""
    torch.manual_seed(0)
    model = form("separable", [4, 4, 8, 8, 8, 16, 16, 16])
    assert tuple(reads_sums(model)) == PAIRS
    spec = QuantSpec(quantizer(4), quantizer(activation)).at_ends(*ends(model), reads_sums(model))
    assert spec.measured_inputs == (PAIRS if activation in (8, 4, 2) else ())
    assert QuantSpec.from_dict(spec.to_dict()) == spec
    prepared = prepare(model, spec)
    layers = {name: prepared.get_submodule(name) for name in PAIRS}
    seen = input_codes(layers)
    prepared(pictures())
    for name, layer in layers.items():
        assert isinstance(layer.input_quantizer, AffineActivation) == bool(spec.measured_inputs)
        if not spec.measured_inputs:
            continue
        codes = seen[name]
        assert codes.min() < 0 < codes.max()  # both signs come through
        assert codes.max() - codes.min() <= highest
        first = prepared.get_submodule(f"{name}1").input_quantizer
        assert type(first) is type(input_quantizer(spec.activation))  # a BN and a ReLU stand before it


def test_networks_without_pairs_measure_nothing() -> None:
    for arch in CFGS:
        assert reads_sums(network(arch)) == []
    assert affine_spec(8, 8, 1, False).at_ends(["a"], ["b"], ["c"]).measured_inputs == ()


TYPED = [QuantSpec(quantizer(4), quantizer(4)), QuantSpec(quantizer("t", gap=True), quantizer("b")),
         affine_spec(8, 8, 1, False), affine_spec(8, 8, 0, True)]  # fmt: skip


@pytest.mark.parametrize("spec", TYPED, ids=lambda spec: spec.name)
def test_float64_networks_are_prepared_as_float32_ones_converted_afterwards(spec: QuantSpec) -> None:
    model = network()
    late = prepare(model, spec.at_ends(*ends(model))).double()
    early = prepare(model.double(), spec.at_ends(*ends(model)))
    assert {t.dtype for t in early.state_dict().values() if t.is_floating_point()} == {torch.float64}
    for training in (True, False):
        outputs = [m.train(training)(pictures().double()) for m in (early, late)]
        assert outputs[0].dtype == torch.float64
        assert torch.equal(*outputs)
    for (name, one), other in zip(early.state_dict().items(), late.state_dict().values(), strict=True):
        assert (one.dtype, one.tolist()) == (other.dtype, other.tolist()), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spec", TYPED, ids=lambda spec: spec.name)
def test_networks_of_half_precision_are_refused(spec: QuantSpec, dtype: torch.dtype) -> None:
    """Integer sums of codes would overflow or be rounded silently."""
    model = network().to(dtype)
    with pytest.raises(UserError, match=f"weights of {dtype}") as fault:
        prepare(model, spec.at_ends(*ends(model)))
    assert fault.value.code == USAGE
    assert "float()" in fault.value.hint
    assert next(prepare(model, QuantSpec()).parameters()).dtype == dtype  # nothing is quantized


def test_linear_layers_are_quantized_too() -> None:
    model = captured(nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.ReLU(), nn.Linear(3, 2)))
    prepared = prepare(model, QuantSpec(quantizer("t"), quantizer(4)))
    assert [type(prepared.get_submodule(name)) for name in ("1", "2", "3")] == [QuantLinear, nn.ReLU, QuantLinear]


@pytest.mark.parametrize("weight", BITS)
def test_clipping_touches_the_latent_weights_of_binary_and_ternary_layers_alone(weight: int | str) -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
    prepared = prepare(model, spec_for(model, weight, 8))
    clip_latent(prepared)
    for (name, new), old in zip(prepared.named_parameters(), model.parameters(), strict=True):
        low = weight in ("t", "b") and name.endswith("conv.weight") and name.split(".")[0] in INNER
        assert torch.equal(new, old.clamp(-1, 1) if low else old), name
    assert model.block2.conv.weight.abs().max() > 1  # so clipping was needed


def test_only_norms_with_binary_readers_are_read_by_sign() -> None:
    model = network()
    binary = prepare(model, QuantSpec(quantizer("b"), quantizer("b"), order="bacp").at_ends(*ends(model)))
    assert read_by_sign(binary) == {f"block{n}.bn" for n in range(1, 8)}, "block 8 is read by a float layer"
    assert read_by_sign(prepare(model, QuantSpec(quantizer("b"), quantizer(8)).at_ends(*ends(model)))) == set()
    assert read_by_sign(model) == set()
