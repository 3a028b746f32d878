"""--sums int8: inputs of sums and concatenations are rounded to 8-bit codes, in training and after merging.

Expected values are computed by hand, with torch.nn.functional on the network's own weights.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from engine.errors import UserError
from engine.numerics import precision
from engine.numerics.precision import Precision
from models import cost
from models.fused.view import View
from models.graph.flow import places
from models.graph.normal import NormalForm
from models.layers.coded_value import CodedValue
from models.layers.quantizers.affine import AffineActivation, affine as on_grid
from models.layers.quantizers.base import Quantized
from quant.prepare import prepare
from quant.spec import QuantSpec, affine_spec, uniform
from quant.sums import negative_sums, summed_values
from tests.conftest import SMALL
from tests.tools.networks import captured, ends


class Residual(nn.Module):
    """A block's output is added to its input, which its first layer reads, too; the head reads both, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = (x + self.b(self.a(x).relu())).relu()
        return self.head(torch.cat([x, y], 1).mean((2, 3)) + 1)


def spec(bits: int = 8, symmetric: bool = False, **more: object) -> QuantSpec:
    made = uniform("affine", 8, bits, {"symmetric": symmetric}, sums="int8", **more)
    return made.at_ends(*ends(captured(Residual())))


@pytest.fixture
def model() -> NormalForm:
    torch.manual_seed(0)
    model = prepare(captured(Residual()).double(), spec())
    for seed in range(3):
        model.train()(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double())
    return model.eval()


NAMES = ["coded_sums.relu", "coded_sums.b", "coded_sums.relu_2"]


def test_each_value_has_a_name_by_what_makes_it() -> None:
    form = captured(Residual())
    assert [*summed_values(form)] == NAMES
    assert negative_sums(form) == ["coded_sums.b"]


class Shifted(nn.Module):
    """A learned shift is reshaped before it is added; a gate is computed from a parameter alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Linear(6, 10)
        self.shift, self.gate = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu() + self.shift[:, None, None]
        y = self.a(x) + torch.sigmoid(self.gate).view(1, -1, 1, 1)
        return self.head((x + y).mean((2, 3)))


def test_what_is_computed_from_parameters_alone_is_no_value_of_a_sum() -> None:
    assert [*summed_values(captured(Shifted()))] == ["coded_sums.add", "coded_sums.add_2"]


def test_sums_and_concatenations_compute_on_codes_times_scale(model: NormalForm) -> None:
    def coded(x: Tensor, quantizer: AffineActivation) -> Tensor:
        codes, scale = on_grid(x, *quantizer.scale_and_zero(), 8, False)
        assert scale is not None
        assert codes.abs().max() <= 255
        return codes * scale

    seen: dict[str, Tensor] = {}
    for name in ("stem", "norm", "a", "b", "head"):
        model.get_submodule(name).register_forward_hook(lambda m, given, out, name=name: seen.update({name: out}))
    given = []
    model.get_submodule("head").register_forward_pre_hook(lambda m, x: given.append(x[0]))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(9)).double()
    model(x)
    one, two, three = (model.get_submodule(name).input_quantizer for name in NAMES)
    first = coded(seen["norm"].relu(), one)
    second = (first + coded(seen["b"], two)).relu()
    want = torch.cat([first, coded(second, three)], 1).mean((2, 3)) + 1
    assert torch.equal(given[0], want)


def test_a_value_that_a_layer_reads_too_is_coded_once_by_its_quantizer(model: NormalForm) -> None:
    value, layer = model.get_submodule("coded_sums.relu"), model.get_submodule("a")
    assert isinstance(value, CodedValue)
    assert value.input_quantizer is layer.input_quantizer
    assert value.shares_input
    assert len(places(model)["a.input_quantizer"]) == 1
    assert not model.get_submodule("coded_sums.b").shares_input


def test_narrower_layers_leave_sums_at_8_bits() -> None:
    model = prepare(captured(Residual()), spec(4))
    assert model.get_submodule("a").input_quantizer.bits == 4
    assert model.get_submodule("coded_sums.relu").input_quantizer.bits == 8
    assert not model.get_submodule("coded_sums.relu").shares_input


@pytest.mark.parametrize(("symmetric", "numbers"), [(False, 2), (True, 1)])
def test_its_scale_and_zero_point_count_where_no_layer_counts_them(symmetric: bool, numbers: int) -> None:
    form = captured(Residual())
    plain, coded = (
        cost.total(cost.layers(prepare(form, made)), "bits")
        for made in (affine_spec(8, 8, int(not symmetric), False).at_ends(*ends(form)), spec(symmetric=symmetric))
    )
    assert coded - plain == 2 * 32 * numbers


def test_ranges_have_gradients_pass_and_follow_training(model: NormalForm) -> None:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    model.train()(x).sum().backward()
    assert all(model.get_submodule(name).weight.grad.abs().sum() > 0 for name in ("stem", "a", "b", "head"))
    assert all(model.get_submodule(name).input_quantizer.seen for name in NAMES)


@pytest.mark.parametrize("how", ["bf16", "exact"])
def test_values_stay_fp32_where_codes_travel_in_bf16(how: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    form = prepare(captured(Residual()), spec()).train()
    seen: dict[str, tuple[object, Tensor]] = {}
    form.get_submodule(NAMES[0]).register_forward_hook(lambda _, given, out: seen.update(here=(given[0], out)))
    with precision.computing(how), torch.no_grad():
        View(form)(torch.randn(2, 3, 8, 8))
    given, out = seen["here"]
    assert isinstance(given, Quantized)
    assert given.scale is not None
    assert given.codes.dtype == torch.bfloat16
    assert out.dtype == torch.float32
    assert torch.equal(out, given.codes.float() * given.scale)


def test_merging_keeps_what_they_code(model: NormalForm) -> None:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    merged = merge(model)
    assert torch.allclose(merged(x), model(x), rtol=1e-10, atol=1e-10)
    assert isinstance(merged.get_submodule("coded_sums.b"), CodedValue)


def test_folding_in_training_goes_on_beside_them() -> None:
    model = prepare(captured(Residual()), spec(bn_fold=True))
    assert type(model.get_submodule("stem")).__name__ == "BNFoldConv2d"


def test_without_sums_and_with_others_activations_it_is_refused() -> None:
    alone = captured(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)))
    with pytest.raises(UserError, match="has no sums or concatenations of values"):
        prepare(alone, uniform("affine", 8, 8, sums="int8"))
    with pytest.raises(ValueError, match="need affine activations, not dorefa"):
        uniform("dorefa", 8, 8, sums="int8")
    with pytest.raises(ValueError, match="unknown sums 'int4'"):
        uniform("affine", 8, 8, sums="int4")


def test_a_network_with_a_module_of_that_name_is_refused() -> None:
    class Taken(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.coded_sums = nn.Identity()

    form = captured(Taken())
    form.add_module("coded_sums", nn.Identity())
    with pytest.raises(UserError, match="already has a module coded_sums"):
        prepare(form, uniform("affine", 8, 8, sums="int8"))


def test_specs_say_it_and_older_ones_read_as_before() -> None:
    assert "sums" not in affine_spec(8, 8, 0, False).to_dict()
    made = uniform("affine", 8, 8, sums="int8")
    assert QuantSpec.from_dict(made.to_dict()) == made
    assert made.name == "int8_q1_fold0_sums"


def test_commands_train_calibrate_merge_and_judge_it(command: Callable[..., SimpleNamespace]) -> None:
    own = ("--arch", "tests.tools.cases:Residual")
    assert command("prune.train", *own, *SMALL).code == 0
    made = command(
        "quant.wqaq", "--sums", "int8", "--q_type", "0", "--refine", "models_save/Residual.pth", *own, *SMALL
    )
    assert made.code == 0, made.err
    assert made.path.endswith("Residual_int8_q0_fold0_sums.pth")
    calibrated = command(
        "quant.ptq", "--model", "models_save/Residual.pth", "--calibrate", "kl", "--sums", "int8", *own, "--cpu"
    )
    assert calibrated.code == 0, calibrated.err
    assert calibrated.path.endswith("Residual_ptq_kl_sums.pth")
    assert "clipped by mse: coded_sums." in calibrated.err
    assert calibrated.out.startswith("int8_q1_sums ptq kl: ")
    for path in (made.path, calibrated.path):
        merged = command("bn_merge.__main__", "--model", path, *own, "--cpu")
        assert merged.code == 0, merged.err
        packed = command("deploy.pack", "--model", merged.path, *own)
        assert packed.code == 0, packed.err
        judged = command("deploy.run", "--model", packed.path, "--evaluate", "--executor", "reference")
        assert judged.code == 0, judged.err
    refused = command("quant.wqaq", "--Wbits", "4", "--quantizer", "dorefa", "--sums", "int8", *own, *SMALL)
    assert refused.code == 2
    assert "--sums is for --quantizer affine" in refused.err


class Masked(nn.Module):
    """Attention along the columns, with a mask that code makes from sizes, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        size = x.shape[-1]
        mask = torch.full((size, size), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        return self.head((x + (x.transpose(2, 3) @ x + mask).softmax(-1) @ x).mean((2, 3)))


def test_a_mask_that_depends_on_no_picture_has_no_codes() -> None:
    assert [*summed_values(captured(Masked()))] == ["coded_sums.stem", "coded_sums.matmul"]
