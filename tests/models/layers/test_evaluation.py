"""Evaluation keeps codes between batches and computes in place; its outputs are those of plain formulas, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.data.info import DataInfo
from engine.data.splits import TensorSplit
from engine.numerics import precision
from engine.tasks.classification import CLASSIFICATION
from models import forms
from models.graph.normal import NormalForm
from models.layers.bnfold import BNFoldConv2d
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.dorefa import DorefaWeight
from quant.placement import meet
from quant.prepare import prepare
from quant.quantizer_spec import for_inputs, quantizer
from quant.spec import QuantSpec, affine_spec, uniform

SPECS = {
    "W8A8": uniform("dorefa", 8, 8),
    "W4A4": uniform("dorefa", 4, 4),
    "LSQ": uniform("lsq", 4, 4),
    "WtA1": QuantSpec(quantizer("t"), for_inputs("b"), order="bacp"),
    "W1A1": QuantSpec(quantizer("b"), for_inputs("b"), order="bacp"),
    "INT8 folded": affine_spec(8, 8, q_type=0, bn_fold=True),
    "asymmetric": affine_spec(8, 8, q_type=1, bn_fold=False),
}
CASES = [
    *(("nin", name) for name in SPECS),
    ("torchvision:resnet18", "W8A8"),
    ("torchvision:mobilenet_v2", "INT8 folded"),
    ("torchvision:shufflenet_v2_x0_5", "asymmetric"),
]
BATCH = 4


def pictures(count: int = 3 * BATCH) -> TensorSplit:
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)
    info = DataInfo("random", "random pictures", 10, 32, (0.5,) * 3, (0.25,) * 3)
    return TensorSplit(images, torch.arange(count) % 10, info, torch.device("cpu"))


def network(arch: str, spec: QuantSpec) -> NormalForm:
    torch.manual_seed(1)
    form = forms.build(arch, [16, 16, 16, 16, 16, 16, 16, 16] if arch == "nin" else None, side=32)
    model = prepare(form, meet(spec, form)).train().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for norm in (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)):
            norm.weight.uniform_(1, 8)  # else few inputs have another code than 0
        model(next(pictures().batches(BATCH))[0])  # ranges and steps need a batch
    return model.eval()


def plainly(model: nn.Module, split: TensorSplit) -> Tensor:
    """Compute with gradients: nothing is kept, and nothing is overwritten."""
    with torch.enable_grad(), precision.computing("exact"):
        return torch.cat([model(images) for images, _ in split.batches(BATCH)]).detach()


@pytest.mark.parametrize(("arch", "name"), CASES, ids=str)
def test_outputs_are_those_of_the_plain_formulas(arch: str, name: str) -> None:
    model, split = network(arch, SPECS[name]), pictures()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = CLASSIFICATION.evaluate(model, split, BATCH).output
    assert torch.equal(found, plainly(model, split))
    assert (found.std(0) > 0).any()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _one_of(model: nn.Module) -> QuantConv2d:
    return next(layer for layer in model.modules() if isinstance(layer, QuantConv2d) and layer.weight_bits < 32)


def test_codes_are_made_once_in_an_evaluation_and_anew_in_the_next() -> None:
    model, calls = network("nin", SPECS["W8A8"]), list[object]()
    _one_of(model).weight_quantizer.register_forward_hook(lambda *_: calls.append(1))
    for count in (1, 2):
        CLASSIFICATION.evaluate(model, pictures(), BATCH)
        assert len(calls) == count


def _weight(layer: QuantConv2d) -> None:
    layer.weight.neg_()


def _weight_unseen(layer: QuantConv2d) -> None:
    layer.weight.data.neg_()


def _step(layer: QuantConv2d) -> None:
    layer.weight_quantizer.step.mul_(2)  # type: ignore[union-attr,operator]


def _statistics(layer: QuantConv2d) -> None:
    assert isinstance(layer, BNFoldConv2d)
    layer._norm[0].running_var[::2] *= 9  # other codes, as one grid covers all filters


CHANGES = [("W8A8", _weight), ("WtA1", _weight_unseen), ("LSQ", _step), ("one grid", _statistics)]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_what_changes_between_batches_counts(name: str, change: Callable[[QuantConv2d], None]) -> None:
    spec = affine_spec(8, 8, q_type=0, bn_fold=True, per_channel=False) if name == "one grid" else SPECS[name]
    model, split = network("nin", spec), pictures()
    first, batches = plainly(model, split), iter(range(3))

    def change_after_the_first() -> None:
        if next(batches) == 0:
            change(_one_of(model))

    found = CLASSIFICATION.evaluate(model, split, BATCH, change_after_the_first).output
    changed = plainly(model, split)
    assert not torch.equal(first, changed)
    assert torch.equal(found, torch.cat([first[:BATCH], changed[BATCH:]]))


def test_a_quantizer_that_does_not_say_that_it_repeats_is_asked_for_each_batch() -> None:
    class Turning(DorefaWeight):
        """A subclass whose codes depend on more than its tensors."""

        calls = 0

        def forward(self, weight: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(weight)  # type: ignore[return-value]

    model = network("nin", SPECS["W8A8"])
    layer = _one_of(model)
    layer.weight_quantizer = Turning(8)
    CLASSIFICATION.evaluate(model, pictures(), BATCH)
    assert layer.weight_quantizer.calls == 3
