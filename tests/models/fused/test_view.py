"""The view of a network that training runs."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import UserError
from engine.numerics import precision
from engine.numerics.precision import Precision
from engine.system.compiled import Unavailable
from engine.training import onednn
from models.fused import library, segments, view
from models.fused.segment import Segment
from models.fused.view import View, chosen
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from models.layers.conv_q import QuantConv2d
from quant.prepare import prepare
from quant.spec import affine_spec, uniform
from tests.tools import networks


def form_of(spec: str) -> NormalForm:
    torch.manual_seed(5)
    form = capture(networks.Forked(), (3, 12, 12), "residual")
    chosen = {"w4a4": uniform("dorefa", 4, 4), "lsq": uniform("lsq", 4, 4), "int8": affine_spec(8, 8, 0, True)}[spec]
    return prepare(form, chosen).to(memory_format=torch.channels_last).train()


@pytest.mark.parametrize("spec", ["w4a4", "lsq", "int8"])
def test_it_trains_the_network_as_the_network_itself(spec: str) -> None:
    """Loss and statistics of a few small steps are compared; more steps would spread the differences of codes on an edge."""
    found = []
    for how in (lambda form: form, View):
        form = form_of(spec)
        compute, steps, gradients = how(form), [], {}
        optimizer = torch.optim.SGD(form.parameters(), 1e-3)
        for step in range(3):
            x = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(step))
            loss = nn.functional.cross_entropy(compute(x), torch.arange(16) % 5)
            optimizer.zero_grad()
            loss.backward()
            gradients = gradients or {n: p.grad.clone() for n, p in form.named_parameters() if p.grad is not None}
            optimizer.step()
            steps.append(loss.item())
        found.append((steps, gradients, form.state_dict()))
    (one, grads, state), (other, same_grads, same) = found
    assert one == pytest.approx(other, rel=2e-3)
    weights = [name for name, grad in grads.items() if grad.ndim > 1]
    assert len(weights) >= 6
    for name in weights:
        assert (grads[name] - same_grads[name]).norm() <= 0.05 * grads[name].norm(), name
    assert state.keys() == same.keys()
    for key, value in state.items():
        torch.testing.assert_close(same[key].float(), value.float(), rtol=2e-2, atol=2e-2, msg=key)


def test_what_stands_between_layers_is_in_segments() -> None:
    form = form_of("w4a4")
    compute = View(form)
    inside = {id(m.norm) for m in compute.children() if isinstance(m, Segment)}
    assert inside >= {id(m) for m in form.modules() if isinstance(m, nn.BatchNorm2d)}
    assert {id(p) for p in compute.parameters()} <= {id(p) for p in form.parameters()}


def test_the_network_is_not_changed() -> None:
    form = form_of("int8")
    x, before = torch.randn(2, 3, 12, 12), copy.deepcopy(form)
    View(form)
    with torch.no_grad():
        assert torch.equal(form.eval()(x), before.eval()(x))


def test_where_a_call_writes_into_a_value_the_network_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(isinstance(m, Segment) for m in View(form_of("w4a4")).modules())
    monkeypatch.setattr(view, "writes", lambda _: True)
    assert not any(isinstance(m, Segment) for m in View(form_of("w4a4")).modules())


def test_it_pays_in_long_trainings_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    form = form_of("w4a4")
    assert chosen(form, "auto", 1000, 50) is None
    assert chosen(form, "auto", 10_000_000, 50) is not None
    assert chosen(form, "off", 10_000_000, 50) is None
    assert chosen(form, "on", 1, 50) is not None

    def absent() -> None:
        raise Unavailable("there is no C++ compiler")

    monkeypatch.setattr(library, "loaded", absent)
    assert chosen(form, "auto", 10_000_000, 50) is None
    assert "slower than it could be: there is no C++ compiler" in capsys.readouterr().err
    with pytest.raises(UserError, match="--fused on: there is no C"):
        chosen(form, "on", 1, 50)


def test_loops_of_numbers_are_taken_where_they_pay() -> None:
    """On a CPU, a float network runs them for an activation behind a norm, and in large batches."""
    form = capture(networks.Forked(), (3, 12, 12), "residual").train()
    shape = (16, 12, 12)  # of the first three norms; the fourth has no activation
    few = -(-segments.FEW // math.prod(shape))
    assert chosen(form, "auto", 10**9, few - 1) is None
    found = [m for m in chosen(form, "auto", 10**9, few).modules() if isinstance(m, Segment)]
    assert [segment.act for segment in found] == ["relu"] * 3
    assert sum(isinstance(m, Segment) for m in chosen(form, "on", 1, 1).modules()) == 4


def test_pools_behind_norms_are_in_segments_where_loops_take_them() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = (nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, 1))
            self.convs = nn.ModuleList(nn.Conv2d(3 if n == 0 else 8, 8, 3, padding=1, bias=False) for n in range(4))
            self.norms, self.pools = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4)), nn.ModuleList(sizes)
            self.last = nn.Conv2d(8, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.pools[0](self.norms[0](self.convs[0](x))).relu()
            x = self.pools[1](self.norms[1](self.convs[1](x)).relu())
            x = self.pools[2](self.norms[2](self.convs[2](x)).relu())  # ceil_mode
            x = self.pools[3](self.norms[3](self.convs[3](x)).relu())  # a hook
            return self.last(x).mean((2, 3))

    torch.manual_seed(2)
    x, found = torch.randn(8, 3, 13, 13), []
    form = capture(Pools(), (3, 13, 13), "pools").to(memory_format=torch.channels_last).train()
    form.get_submodule("pools.3").register_forward_hook(lambda *_: None)
    for compute in (form, View(form)):
        loss = (compute(x) * torch.linspace(-1, 1, 40).reshape(8, 5)).sum()
        form.zero_grad()
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in form.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    found = {id(m.norm): m for m in View(form).modules() if isinstance(m, Segment)}
    pools = [found[id(form.get_submodule(f"norms.{n}"))].pool for n in range(4)]
    assert pools == [form.get_submodule("pools.0"), form.get_submodule("pools.1"), None, None]


def test_a_norm_with_a_pool_alone_pays_too() -> None:
    """In a float network on a CPU; a norm alone does not."""

    class Plain(nn.Sequential):
        def __init__(self, *pool: nn.Module) -> None:
            super().__init__(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), *pool, nn.Flatten(), nn.LazyLinear(5))

    for pool, count in (((), 0), ((nn.MaxPool2d(2),), 1)):
        model = Plain(*pool)
        model(torch.zeros(1, 3, 10, 10))
        form = capture(model, (3, 10, 10), "plain").train()
        assert sum(isinstance(m, Segment) for m in View(form, 10**6).modules()) == count


def test_a_size_in_a_tuple_of_one_is_that_of_both_sides() -> None:
    class Short(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(nn.functional.max_pool2d(self.norm(self.conv(x)), [2]).relu()).mean((2, 3))

    form = capture(Short(), (3, 9, 9), "short").train()
    x = torch.randn(4, 3, 9, 9)
    assert any(m.pool for m in View(form).modules() if isinstance(m, Segment))
    torch.testing.assert_close(View(form)(x), form(x), rtol=1e-4, atol=1e-5)


def test_layers_that_may_leave_bf16_are_fused_all_the_same() -> None:
    """Segments call products.convolution, which leaves it, too, where a tap meets padding alone."""
    form = networks.form("nin", [16] * 8)
    before = [type(part) for part in View(form.train()).modules()]
    onednn.spare(form)
    assert [type(part) for part in View(form).modules()] == before
    assert any(isinstance(part, Segment) and part.layer is not None for part in View(form).modules())


def test_hooks_are_called_and_names_of_the_network_stay_its_own() -> None:
    """A workaround for oneDNN is such a hook; a layer may have the same name as a segment."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.segment2, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.segment3, self.norm3 = nn.Conv2d(8, 8, 1, stride=2), nn.BatchNorm2d(8)
            self.segment, self.last = nn.MaxPool2d(2), nn.Conv2d(8, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.segment(self.norm(self.segment2(x)).relu())
            return self.last(self.norm3(self.segment3(x)).relu()).mean((2, 3))

    torch.manual_seed(1)
    form = prepare(capture(Named(), (3, 12, 12), "named"), uniform("dorefa", 4, 4)).to(
        memory_format=torch.channels_last
    )
    called: list[str] = []
    form.get_submodule("segment3").register_forward_pre_hook(lambda *_: called.append("segment3"))
    form.get_submodule("norm").register_forward_hook(lambda *_: called.append("norm"))
    x, other = torch.randn(4, 3, 12, 12), copy.deepcopy(form)
    keys = [*form.state_dict()]
    found = View(form.train())(x)
    assert called == ["norm", "segment3"]
    torch.testing.assert_close(found, other.train()(x), rtol=0.05, atol=0.05)
    assert [*form.state_dict()] == keys


def test_what_is_read_apart_is_the_networks_own() -> None:
    """A tensor that is not part of the checkpoint does not become part of it."""

    class Scaled(nn.Conv2d):
        def __init__(self, *given: int) -> None:
            super().__init__(*given)
            self.register_buffer("factor", torch.full((), 2.0), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.factor

    form = capture(
        nn.Sequential(Scaled(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 8), nn.Flatten()),
        (3, 10, 10),
        "scaled",
    )
    form = prepare(form, uniform("dorefa", 4, 4)).train()
    keys = [*form.state_dict()]
    x = torch.randn(2, 3, 10, 10)
    torch.testing.assert_close(View(form)(x), form(x), rtol=0.05, atol=0.05)
    assert [*form.state_dict()] == keys


@pytest.mark.parametrize("how", ["bf16", "exact"])
def test_codes_travel_as_bf16(how: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    form = form_of("w4a4")
    kinds: list[torch.dtype] = []
    watched, run = form.get_submodule("a2"), QuantConv2d.sums

    def sums(layer: QuantConv2d, x: Any, *given: Any) -> Any:
        if layer is watched:
            kinds.append(x.codes.dtype)
        return run(layer, x, *given)

    monkeypatch.setattr(QuantConv2d, "sums", sums)
    x, loss = torch.randn(2, 3, 12, 12), {}
    for now in (how, "fp32"):
        with precision.computing(now):
            loss[now] = View(form)(x).sum()
    loss[how].backward()
    assert kinds == [torch.bfloat16, torch.float32]
    assert torch.equal(loss["exact"], loss["fp32"]) if how == "exact" else loss["bf16"].isfinite()
    assert all(p.grad.dtype == torch.float32 for p in form.parameters() if p.grad is not None)
