"""LSQ equals an oracle written from arXiv 1902.08153: codes, initial steps, gradients; commands handle its steps."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, strategies as st
from torch import nn

from bn_merge.merge import merge
from engine.checkpoint import archive
from engine.data.info import DataInfo
from engine.data.splits import Data, TensorSplit
from engine.errors import BAD_CHECKPOINT, DIVERGED, UserError
from engine.tasks.classification import CLASSIFICATION
from engine.training.loop import fit
from engine.training.progress import FitConfig
from engine.training.recipe import Recipe, decay_groups
from models.layers.quantizers.lsq import LsqActivation, LsqWeight, lsq
from quant.placement import reads_sums
from quant.prepare import prepare
from quant.restore import open as opened
from quant.spec import QuantSpec, uniform
from tests.conftest import JUDGING, NARROW, SMALL, assert_refused
from tests.models.layers.quantizers.oracle import inputs, off_tie, upstream, weights
from tests.tools.contents import raw
from tests.tools.draws import drawn
from tests.tools.networks import ends, form

LSQ = ("quant.wqaq", "--quantizer", "lsq", "--Wbits", 4, "--Abits", 4, *SMALL)


FLOATS = (torch.float32, torch.float64)


def limits(bits: int, signed: bool) -> tuple[int, int]:
    """Return -Qn and Qp of section 2."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
@drawn(x=inputs, step=st.floats(1e-3, 10), count=st.integers(1, 10**6))
def test_codes_and_gradients(bits: int, signed: bool, x: np.ndarray, step: float, count: int) -> None:
    low, high = limits(bits, signed)
    ratio = x / step
    assume(((np.abs(ratio - low) > 1e-9).all() and (np.abs(ratio - high) > 1e-9).all()) or not x.any())
    tensor, s = torch.tensor(x, requires_grad=True), torch.tensor(step, dtype=torch.float64, requires_grad=True)
    codes, scale = lsq(tensor, s, low, high, count)
    assert scale.item() == step
    expected, clear = np.rint(np.clip(ratio, low, high)), off_tie(ratio)
    assert np.array_equal(codes.detach().numpy()[clear], expected[clear])
    up = upstream(*x.shape) * clear
    (codes * scale * torch.tensor(up)).sum().backward()
    inside = (ratio > low) & (ratio < high)
    np.testing.assert_allclose(tensor.grad, up * inside, rtol=1e-9, atol=1e-12)
    slope = np.where(inside, np.rint(ratio) - ratio, np.clip(ratio, low, high))
    size = np.abs(up * np.maximum(np.abs(slope), np.abs(ratio) * inside)).sum() / np.sqrt(count * high)
    np.testing.assert_allclose(
        s.grad.item(), (up * slope).sum() / np.sqrt(count * high), rtol=1e-9, atol=1e-12 * size + 1e-300
    )


def test_the_gradient_of_the_step_by_hand() -> None:
    """The gradient is the code minus x / s inside the range, and the outermost code outside."""
    x = torch.tensor([0.1, 1.2, 9.0, -9.0], dtype=torch.float64)
    s = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    codes, scale = lsq(x, s, -4, 3, 1)
    (codes * scale).sum().backward()
    expected = (0 - 0.1) + (1 - 1.2) + 3 - 4
    assert s.grad.item() == pytest.approx(expected / 3**0.5, rel=1e-12)


@pytest.mark.parametrize("bits", range(2, 9))
@drawn(weight=weights())
def test_weights_start_at_their_mean(bits: int, weight: np.ndarray) -> None:
    module = LsqWeight(bits, torch.tensor(weight))
    high = 2 ** (bits - 1) - 1
    expected = 2 * np.abs(weight).mean() / np.sqrt(high) or 1.0
    assert module.step.item() == pytest.approx(expected, rel=1e-12)
    codes = module(torch.tensor(weight)).codes
    assert (codes == codes.round()).all()
    assert codes.min() >= -high - 1
    assert codes.max() <= high
    assert list(module.state_dict()) == ["step"]
    assert (module.bits, module.scales, module.constants) == (bits, 0, 1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("bits", "root"), [(2, 1), (4, 7**0.5), (8, 127**0.5)])
def test_the_first_step_of_every_finite_weight_is_finite(bits: int, root: float, dtype: torch.dtype) -> None:
    large, least = (
        torch.finfo(dtype).max,
        float(torch.nextafter(torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype))),
    )
    weights_and_means = [
        ([large] * 7, large),
        ([large / 4, -large / 2, large / 4, 0], large / 4),
        ([-large], large),
        ([0], 0),
        ([0] * 9, 0),
        ([0.25], 0.25),
        ([1000 * least, -3000 * least], 2000 * least),
        ([least, 0, 0], Fraction(least) / 3),
    ]
    for weight, mean in weights_and_means:
        step = LsqWeight(bits, torch.tensor(weight, dtype=dtype)).step
        exact = 2 * Fraction(mean) / Fraction(root)
        expected = min(max(exact, Fraction(least)), Fraction(large)) if mean else 1
        assert step.dtype == dtype
        assert abs(Fraction(step.item()) - expected) <= max(4 * torch.finfo(dtype).eps * expected, Fraction(least)), (
            weight
        )


@pytest.mark.parametrize("negative", [True, False])
def test_the_first_training_batch_sets_the_step_of_activations(negative: bool) -> None:
    module, x = LsqActivation(4, negative).eval(), torch.linspace(-1, 3, 24).reshape(2, 3, 2, 2)
    assert module(x).codes is x  # no step is known yet
    assert module(x).scale is None
    module.train()(x)
    high = 7 if negative else 15
    first = 2 * float(x.abs().mean()) / high**0.5
    assert module.step.item() == pytest.approx(first, rel=1e-6)
    module(10 * x)
    assert module.step.item() == pytest.approx(first, rel=1e-6)
    codes = module.eval()(x).codes
    assert torch.equal(codes, (x / first).round().clamp(-8 if negative else 0, high))
    again = LsqActivation(4, negative)
    again.load_state_dict(module.state_dict())
    again.train()(10 * x)  # a resumed run
    assert torch.equal(again.step, module.step)
    assert list(module.state_dict()) == ["step", "seen"]


@pytest.mark.parametrize(("value", "expected"), [(3e38, 3e38 * 2 / 15**0.5), (1e-45, 1e-45)])
def test_a_first_batch_whose_sum_overflows_sets_a_finite_step(value: float, expected: float) -> None:
    module = LsqActivation(4, False)
    module.train()(torch.full((2, 8), value))
    assert module.step.item() == pytest.approx(expected, rel=1e-5)
    module = LsqActivation(4, False)
    module.train()(torch.full((2, 8), torch.inf))
    assert module.fault()


def test_the_share_of_activations_is_of_one_picture() -> None:
    """The loss averages over a batch's pictures; section 2.2 counts a layer's features."""
    grads = []
    for batch in (1, 4):
        module = LsqActivation(2, False)
        module.seen.fill_(1)
        x = torch.full((1, 5), 0.7).repeat(batch, 1)
        codes, scale = module(x)
        (codes * scale).sum(1).mean().backward()
        grads.append(module.step.grad.item())
    assert grads[0] == pytest.approx(grads[1], rel=1e-6)
    assert grads[0] == pytest.approx(5 * 0.3 / (5 * 3) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("step", [0.0, -0.1, float("nan"), float("inf")])
def test_a_step_that_is_no_positive_number_is_never_used(step: float) -> None:
    for module in (LsqWeight(4, torch.ones(2, 2)), LsqActivation(4, False)):
        assert module.fault() == ""
        module.step.data.fill_(step)
        if isinstance(module, LsqActivation):
            module.seen.fill_(1)
        assert module(torch.ones(2, 2)).codes.isnan().all()
        assert module.fault().startswith(".step is ")


def spec_of(model: nn.Module, w: int = 4, a: int = 4) -> QuantSpec:
    return uniform("lsq", w, a).at_ends(*ends(model), reads_sums(model))


@pytest.mark.parametrize("arch", ["nin", "nin_gc", "separable", "slimming"])
def test_where_bits_and_signs_go(arch: str) -> None:
    model = form(arch, {"nin_gc": [2, 2, 16, 16, 4, 32, 32, 8]}.get(arch))
    spec = spec_of(model, 4, 3)
    assert (spec.name, spec.exceptions, spec.float_inputs, spec.measured_inputs) == ("lsq_w4a3", (), (), ())
    prepared = prepare(model, spec)
    assert [type(m) for m in prepared.modules() if isinstance(m, nn.ReLU)] == [
        nn.ReLU for m in model.modules() if isinstance(m, nn.ReLU)
    ]
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            new = prepared.get_submodule(name)
            bits = (8, 8) if name in sum(ends(model), ()) else (4, 3)
            assert (new.weight_quantizer.bits, new.input_quantizer.bits) == bits, name
            signed = name in (*ends(model)[0], *reads_sums(model))
            low, high = limits(bits[1], signed)
            assert (new.input_quantizer.lowest, new.input_quantizer.highest) == (low, high), name
    plain, decayed = (group["params"] for group in reversed(decay_groups(prepared, 0.1)))
    steps = {id(p) for name, p in prepared.named_parameters() if name.endswith(".step")}
    assert len(steps) == 2 * sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    assert steps <= {id(p) for p in plain}
    assert not steps & {id(p) for p in decayed}


@pytest.mark.parametrize("arch", ["nin", "nin_gc", "separable", "slimming"])
@pytest.mark.parametrize("bits", [(4, 4), (2, 2), (8, 3), (3, 32)])
def test_a_merged_network_computes_the_same(arch: str, bits: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = form(arch, {"nin": [8] * 8, "nin_gc": [2, 2, 16, 16, 4, 32, 32, 8]}.get(arch)).double()
    prepared = prepare(model, spec_of(model, *bits))
    x = torch.randn(8, 3, 8, 8).double()
    for _ in range(2):
        prepared.train()(x).sum().backward()
    for name, parameter in prepared.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    folded = merge(prepared)
    torch.testing.assert_close(folded(x), prepared.eval()(x), rtol=0, atol=1e-9)


def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped() -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8, generator=draws)
    info = DataInfo("digits", "noise", 10, 8, (0.5,) * 3, (0.25,) * 3, pad=1)
    split = TensorSplit(images, torch.randint(0, 10, (40,), generator=draws), info, torch.device("cpu"))
    data, config = Data(info, split, split), FitConfig(Recipe(2, 8), quiet=True)

    def network() -> nn.Module:
        torch.manual_seed(0)
        model = form("nin", [8] * 8)
        return prepare(model, spec_of(model))

    whole, kept = network(), []
    fit(whole, data, config, CLASSIFICATION, after_epoch=lambda p: kept.append(copy.deepcopy(p.state_dict())))
    again = network()
    again.block2.conv.weight_quantizer.step.data.fill_(7)  # the fresh network's initial step is overwritten
    fit(again, data, config, CLASSIFICATION, resume=kept[0])
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert whole.block2.conv.weight_quantizer.step != network().block2.conv.weight_quantizer.step


def test_from_training_to_a_merged_file(command, workplace: Path) -> None:
    done = command(*LSQ, "--cfg", NARROW)
    assert (done.code, done.path) == (0, "models_save/nin_lsq_w4a4.pth"), done.err
    state = raw(workplace / done.path)["state_dict"]
    assert {"block1.conv.weight_quantizer.step", "block9.conv.input_quantizer.step"} <= state.keys()
    first = command(*LSQ[:7], *JUDGING, "--evaluate").out
    assert command("bn_merge.__main__", "--model", done.path, "--cpu").path == "models_save/nin_lsq_w4a4_merged.pth"
    told = command("bn_merge.compare", "models_save/nin_lsq_w4a4_merged.pth", "--float64", "--cpu")
    assert "same answer   360 of 360" in told.out, told.err
    assert "lsq_w4a4" in first
    row = command("scripts.report", done.path, "models_save/nin_lsq_w4a4_merged.pth").out
    assert row.count("lsq_w4a4") >= 2
    assert row.count("first and last layer 8 bit") == 2
    folded = opened(workplace / "models_save/nin_lsq_w4a4_merged.pth").network
    assert {name for name, layer in folded.named_modules() if getattr(layer, "weight_bits", 0) == 8} == {
        "block1.conv", "block9.conv",
    }  # fmt: skip
    assert_refused(
        command("quant.wqaq", "--evaluate", done.path, *JUDGING, "--quantizer", "dorefa"), 2, "contradicts --quantizer"
    )


def test_a_file_with_a_step_that_is_none_is_refused(command, workplace: Path) -> None:
    path = workplace / command(*LSQ, "--cfg", NARROW).path
    content = raw(path)
    content["state_dict"]["block2.conv.input_quantizer.step"].fill_(-1)
    archive.save(path, content)
    with pytest.raises(UserError, match=r"block2\.conv\.input_quantizer\.step is -1, not a positive number") as fault:
        opened(path)
    assert fault.value.code == BAD_CHECKPOINT


def test_steps_that_leave_the_positive_numbers_end_training(command, workplace: Path) -> None:
    assert command(*LSQ, "--cfg", NARROW).code == 0
    before = Path("models_save/nin_lsq_w4a4.pth").read_bytes()
    assert_refused(command(*LSQ, "--cfg", NARROW, "--lr", 1e6), DIVERGED, "the loss became nan")
    assert Path("models_save/nin_lsq_w4a4.pth").read_bytes() == before


@pytest.mark.parametrize(
    "line", [("--Wbits", "t"), ("--Abits", "b"), ("--Wbits", 32), ("--q_type", 1), ("--bn_fold", 0)]
)
def test_what_lsq_has_no_use_for_is_refused(line: tuple, command) -> None:
    assert_refused(command("quant.wqaq", "--quantizer", "lsq", *line), 2)
