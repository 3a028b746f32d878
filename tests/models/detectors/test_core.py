"""The core of a detector computes the same numbers as the detector, and the detector's code gives the same boxes with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from bn_merge.merge import merge
from engine.errors import UserError
from models.check import Misdeclared
from models.detectors.core import Core
from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked, narrowed
from models.libraries import DETECTORS, build
from prune.plan import plan
from prune.widths import Subject
from tests.tools.tiny_detector import Tiny

SIDES = {"ssdlite320_mobilenet_v3_large": 64, "ssd300_vgg16": 300}
TARGETS = (
    {"boxes": torch.tensor([[5.0, 5, 40, 50], [20, 30, 60, 62]]), "labels": torch.tensor([0, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
)


def form_of(core: nn.Module, side: int, name: str = "tiny") -> NormalForm:
    return capture(core, (3, side, side), name)


def assert_same(core: Core, form: NormalForm, side: int) -> None:
    """Check that the captured graph with the detector's code gives the detector's losses and boxes."""
    detector, x = core._detector[0], torch.rand(2, 3, side, side)
    own = [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in TARGETS]
    for network in (form, detector):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    output = form(x)
    found, wanted = form.captured.detector.losses(output, list(TARGETS)), detector(list(x), own)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    sum(found.values()).backward()
    assert all(p.grad is not None for p in form.parameters())
    form.eval(), detector.eval()
    with torch.no_grad():
        for one, other in zip(form.captured.detector.boxes(form(x)), detector(list(x)), strict=True):
            order = other["scores"].argsort(descending=True, stable=True)
            assert torch.equal(one["boxes"], other["boxes"][order])
            assert torch.equal(one["labels"], other["labels"][order] - 1)


@pytest.mark.parametrize("name", DETECTORS)
def test_torchvisions_detectors(name: str) -> None:
    torch.manual_seed(0)
    side = SIDES.get(name, 64)
    core = build(f"torchvision:{name}", 3)
    assert isinstance(core, Core)
    assert_same(core, form_of(core, side, name), side)
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=4)
    assert core.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_masked_equals_narrowed_folded_equals_unfolded_and_heads_keep_their_outputs(name: str) -> None:
    torch.manual_seed(0)
    side, importance = SIDES.get(name, 64), "l1" if name == "ssd300_vgg16" else "bn"  # VGG16 has no batch norms
    core = build(f"torchvision:{name}", 3).double()
    with torch.no_grad():
        for module in core.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.running_var):
                    value.uniform_(0.5, 1.5)
                for value in (module.bias, module.running_mean):
                    value.normal_()
    form = form_of(core, side, name)
    found = channels(form)
    dropped = plan(Subject(core, form, found, name), 0.5, importance=importance).dropped
    small, silent = narrowed(core, form, found, dropped, name), masked(form, found, dropped)
    assert small.captured.detector is not None
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(p.numel() for p in form.parameters())
    x = torch.rand(2, 3, side, side, dtype=torch.float64)
    merged = merge(small.eval())
    assert merged.captured.detector is not None
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    with torch.no_grad():
        wanted = silent.eval()(x)
        assert small.eval()(x).shape == wanted.shape
        assert (small(x) - wanted).abs().max() <= 1e-10 * wanted.abs().max()
        assert (merged(x) - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def test_a_detector_of_ones_own() -> None:
    torch.manual_seed(0)
    core = Core(Tiny(), ["trunk", "top"], "tiny", 3)
    form = form_of(core, 32)
    assert form.captured.answer == (None, 8 * 8 * 8)
    assert list(form.state_dict()) == list(Tiny().state_dict())
    assert_same(core, form, 32)


class Reads(Tiny):
    """A detector whose loss reads values between the modules of its core."""

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        if targets is None:
            return super().forward(images)
        between = self.trunk(torch.stack(images))
        return {"loss": self.top(between).square().mean() + between.square().mean()}


class Parallel(nn.Module):
    """Two heads that read one trunk, and anchors that belong to no module of the core."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.where, self.which = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("anchors", torch.arange(4.0))

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        maps = self.trunk(torch.stack(images))
        where, which = (head(maps).flatten(2).transpose(1, 2) for head in (self.where, self.which))
        where = where + self.anchors
        if targets is not None:
            return {"where": where.square().mean(), "which": which.square().mean()}
        return [
            {"boxes": w, "scores": c[:, 0], "labels": c[:, 1:].argmax(1) + 1} for w, c in zip(where, which, strict=True)
        ]


def test_heads_side_by_side_and_numbers_around_the_core() -> None:
    torch.manual_seed(0)
    core = Core(Parallel(), ["trunk", "where", "which"], "parallel", 3)
    form = form_of(core, 32, "parallel")
    assert form.captured.answer == (None, 2 * 4 * 64)
    assert_same(core, form, 32)


def test_numbers_around_the_core_go_where_its_output_is() -> None:
    form = form_of(Core(Parallel(), ["trunk", "where", "which"], "parallel", 3), 32, "parallel")
    output = torch.zeros(2, 512, device="meta")
    with form.captured.detector._answering(output, True) as detector:
        assert detector.anchors.device.type == "meta"


class Twice(Tiny):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        self.trunk(torch.stack(images))
        return super().forward(images, targets)


class Changes(Tiny):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        return super().forward([image * 2 - 1 for image in images], targets)


class FromZero(Tiny):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        found = super().forward(images, targets)
        return found if targets is not None else [{**one, "labels": one["labels"] * 0} for one in found]


class OneLoss(Tiny):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        found = super().forward(images, targets)
        return found if targets is None else sum(found.values())


class NoBoxes(Tiny):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        found = super().forward(images, targets)
        return found if targets is not None else found[0]


class Fewer(Tiny):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        found = super().forward(images, targets)
        return found if targets is not None else found[:-1]


class Batch(Tiny):
    def forward(self, images: Any, targets: Any = None) -> Any:
        return self.top(self.trunk(images))


class Counts(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.MaxPool2d(1, return_indices=True))

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        return self.top(self.trunk(torch.stack(images))[0])


class Between(Tiny):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        return self.top(self.trunk(torch.stack(images)) * 2)


@pytest.mark.parametrize(
    ("kind", "names", "said"),
    [
        (Tiny, "trunk,head", "names 'head', which is not a module of the detector"),
        (Tiny, "trunk", "top.weight lies outside of --core trunk"),
        (Twice, "trunk,top", "trunk of --core runs 2 times"),
        (Changes, "trunk,top", "reads another tensor than the picture given to the detector"),
        (Between, "trunk,top", "reads a tensor that no module of --core returned"),
        (Reads, "trunk,top", "its code also reads values that pass from one module of --core to the next"),
        (FromZero, "trunk,top", "it returns label 0; labels of 3 classes run from 1 to 3"),
        (OneLoss, "trunk,top", "in training it returns no dict of losses"),
        (Fewer, "trunk,top", "in evaluation it returns 1 dicts for 2 pictures"),
        (NoBoxes, "trunk,top", "in evaluation it returns no list of dicts with boxes, labels, scores"),
        (Batch, "trunk,top", "TypeError"),
        (Counts, "trunk,top", "trunk of --core returns something other than float tensors"),
    ],
)
def test_what_is_no_core_is_refused_by_name(kind: type[nn.Module], names: str, said: str) -> None:
    with pytest.raises(Misdeclared, match=said) as fault:
        form_of(Core(kind(), names.split(","), "its", 3), 32)
    assert fault.value.hint


def test_two_stage_detectors_are_refused() -> None:
    with pytest.raises(UserError, match="is a two-stage detector"):
        build("torchvision:fasterrcnn_resnet50_fpn", 3)


def test_a_side_that_would_be_filled_up_is_refused() -> None:
    with pytest.raises(Misdeclared, match=r"--image_size 70: .* multiple of 32") as fault:
        form_of(build("torchvision:retinanet_resnet50_fpn", 3), 70)
    assert fault.value.hint == "give --image_size 64"


def test_the_normalisation_of_a_detectors_own_transform_is_known_and_not_done_twice() -> None:
    core = build("torchvision:ssdlite320_mobilenet_v3_large", 3)
    assert core.normalisation == ((0.5,) * 3, (0.5,) * 3)
    form_of(core, 64, "ssdlite")
    assert core._detector[0].transform.image_mean == [0.0] * 3
    assert core._detector[0].transform.image_std == [1.0] * 3
    assert Core(Tiny(), ["trunk", "top"], "tiny", 3).normalisation is None


def test_background_is_no_answer_of_a_librarys_detector() -> None:
    """RetinaNet has a score for class 0, which is no object; in user code label 0 may be a class."""
    shell = form_of(build("torchvision:retinanet_resnet50_fpn", 3), 64, "retinanet").captured.detector
    found = {"boxes": torch.rand(3, 4), "scores": torch.tensor([0.2, 0.9, 0.5]), "labels": torch.tensor([1, 0, 3])}
    kept = shell._sorted(found)
    assert kept["labels"].tolist() == [2, 0]
    assert torch.equal(kept["boxes"], found["boxes"][[2, 0]])
