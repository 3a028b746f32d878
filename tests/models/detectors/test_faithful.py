"""A detector's own code gives the same with the core's outputs alone, in the form that is asked for, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.check import Misdeclared
from models.detectors.core import Core
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from tests.tools.tiny_detector import Tiny


class Spoils(Tiny):
    """A detector with a function of its own for each picture's boxes, or for the losses, that also sees the pictures."""

    def __init__(self, boxes: Any = None, losses: Any = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__()
        self.spoil, self.weigh = boxes or (lambda one, *_: one), losses or (lambda found, *_: found)

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        between: list[Tensor] = []
        handle = self.trunk.register_forward_hook(lambda module, given, output: between.append(output))
        found = super().forward(images, targets)
        handle.remove()
        if targets is not None:
            return self.weigh(found, images, between[0])
        return [self.spoil(one, image, inner) for one, image, inner in zip(found, images, between[0], strict=True)]


def captured(detector: Spoils) -> NormalForm:
    return capture(Core(detector, ["trunk", "top"], "its", 3), (3, 32, 32), "its")


def kept(one: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    return {key: value[keep.expand(len(value))] for key, value in one.items()}


def rare(one: dict[str, Tensor], image: Tensor, inner: Tensor) -> dict[str, Tensor]:
    """Find boxes in very bright pictures alone, and never at the first amplitude: there all answers are empty."""
    sure = kept(one, one["scores"] > 0.999)
    return kept(sure, inner.mean() > 0)


READERS: dict[str, tuple[str, Spoils]] = {
    "weighs boxes by inner values": ("boxes", Spoils(lambda one, _, inner: {**one, "scores": one["scores"] * inner.mean()})),
    "compares inner values": ("boxes", Spoils(lambda one, _, inner: kept(one, inner.max() > 0))),
    "compares the picture": ("boxes", Spoils(lambda one, image, _: kept(one, image.mean() > 1e-9))),
    "compares where boxes are rare": ("boxes", Spoils(rare)),
    "weighs its loss by the picture": ("losses", Spoils(
        losses=lambda found, images, _: {"loss": sum(found.values()) * (1 + torch.stack(images).mean())})),
    "weighs its loss by chance and the picture": ("losses", Spoils(
        losses=lambda found, images, _: {"loss": sum(found.values()) * torch.rand(()) * (1 + torch.stack(images).mean())})),
    "compares inner values in its loss": ("losses", Spoils(
        losses=lambda found, _, inner: {"loss": sum(found.values()) + (inner > 0).float().mean()})),
}  # fmt: skip


@pytest.mark.parametrize(("what", "detector"), READERS.values(), ids=[*READERS])
def test_code_that_reads_more_than_the_core_gives_is_refused(what: str, detector: Spoils) -> None:
    core = Core(detector, ["trunk", "top"], "its", 3)
    for _ in range(2):  # the second try is refused, too
        with pytest.raises(Misdeclared, match=f"its {what} change when it gets the outputs of --core alone"):
            capture(core, (3, 32, 32), "its")


def test_losses_that_change_with_each_call_are_no_fault_of_the_core() -> None:
    calls = [0]

    def weigh(found: dict[str, Tensor], *_: Any) -> dict[str, Tensor]:
        calls[0] += 1
        return {key: loss * calls[0] for key, loss in found.items()}

    captured(Spoils(losses=weigh))
    assert calls[0] > 2


MALFORMED: dict[str, tuple[str, Spoils]] = {
    "float labels": (
        r"its labels are float32 \(64,\), not a tensor of integers \(64,\)",
        Spoils(lambda one, *_: {**one, "labels": one["labels"].float()})),
    "scores in a column": (
        r"its scores are float32 \(64, 1\), not a tensor of numbers \(64,\)",
        Spoils(lambda one, *_: {**one, "scores": one["scores"][:, None]})),
    "fewer scores": (
        r"its scores are float32 \(1,\), not a tensor of numbers \(64,\)",
        Spoils(lambda one, *_: {**one, "scores": one["scores"][:1]})),
    "fewer labels": (
        r"its labels are int64 \(63,\), not", Spoils(lambda one, *_: {**one, "labels": one["labels"][1:]})),
    "boxes of three numbers": (
        r"its boxes are float32 \(64, 3\), not a tensor of numbers \(n, 4\)",
        Spoils(lambda one, *_: {**one, "boxes": one["boxes"][:, :3]})),
    "numpy": (
        r"its boxes are of type ndarray, not a tensor of numbers \(n, 4\)",
        Spoils(lambda one, *_: {key: value.detach().numpy() for key, value in one.items()})),
    "a loss a picture": (
        r"its loss size is float32 \(2,\), not a float tensor of one number",
        Spoils(losses=lambda found, images, _: {"size": found["size"].repeat(len(images))})),
    "an integer loss": (
        r"its loss size is int64 \(\), not a float tensor", Spoils(losses=lambda found, *_: {"size": found["size"].long()})),
    "a number": (
        "its loss size is of type float, not a float tensor", Spoils(losses=lambda found, *_: {"size": float(found["size"])})),
}  # fmt: skip


@pytest.mark.parametrize(("said", "detector"), MALFORMED.values(), ids=[*MALFORMED])
def test_results_of_another_form_are_refused_by_name(said: str, detector: Spoils) -> None:
    with pytest.raises(Misdeclared, match=said) as fault:
        captured(detector)
    assert fault.value.hint.startswith("return ")


def test_whole_boxes_and_half_precision_are_taken() -> None:
    for change in (Tensor.int, Tensor.half):
        spoils = Spoils(lambda one, *_, change=change: {**one, "boxes": change(one["boxes"].clamp(-1e4, 1e4))})
        captured(spoils)


def test_losses_without_a_gradient_are_refused() -> None:
    core = Core(
        Spoils(losses=lambda found, *_: {key: loss.detach() for key, loss in found.items()}), ["trunk", "top"], "its", 3
    )
    form = capture(core, (3, 32, 32), "its")
    target = {"boxes": torch.tensor([[5.0, 5, 20, 30]]), "labels": torch.tensor([0])}
    with pytest.raises(Misdeclared, match="in training its losses have no gradient"):
        form.captured.detector.losses(form(torch.rand(2, 3, 32, 32)), [target] * 2)
