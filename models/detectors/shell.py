"""A detector's code around its core: losses and boxes from the core's outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from engine.checkpoint.words import counted
from engine.cli.archs import library
from models.check import Misdeclared, as_misdeclared
from models.detectors.results import check_boxes, check_losses
from models.detectors.settings import Settings, outputs, settings
from models.detectors.stages import CALLED, Stage, answers

Boxes = dict[str, Tensor]
"""The boxes of a picture: "boxes" (n, 4), x1, y1, x2, y2 in pixels; "labels" (n,), from 0; in answers "scores" (n,)."""


class Shell:
    """The code of a detector around its core. The detector runs with modules that return given outputs of the core.

    Args:
        stages: the stages of the core.
        side: side of the pictures.
        arch: the network's name in messages.
        classes: number of classes of objects, without the background.
    """

    def __init__(self, detector: nn.Module, stages: Sequence[Stage], side: int, arch: str, classes: int) -> None:
        self._detector, self._stages, self.side = detector, list(stages), side
        self._arch, self._classes = arch, classes
        core = {module for stage in stages for module in detector.get_submodule(stage.name).modules()}
        self._around = [module for module in detector.modules() if module not in core]

    @property
    def settings(self) -> Settings:
        """The settings with which it makes boxes; see models.detectors.settings."""
        return settings(self._detector, self._stages)

    @property
    def outputs(self) -> list[tuple[str, tuple[int, ...]]]:
        """The names and shapes of the core's tensors, in the order in which they lie in its output."""
        return outputs(self._stages)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shell:
        """Return self: a shell does not train, so copies of a network share it."""
        return self

    def losses(self, output: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]:
        """Return the losses of a batch, under the detector's names.

        Args:
            output: the core's output, (B, numbers).
            targets: the true boxes of each picture.

        Raises:
            Misdeclared: exit 2 as results.check_losses, or if the detector's code raises an error.
        """
        with self._answering(output, True) as detector:
            found = self._losses_of(detector, self._blank(output), targets)
        if output.requires_grad and torch.is_grad_enabled() and not any(loss.requires_grad for loss in found.values()):
            raise Misdeclared(
                f"--arch {self._arch}: in training its losses have no gradient",
                "compute them from the outputs of --core, without detach() and torch.no_grad()",
            )
        return found

    @torch.no_grad()
    def boxes(self, output: Tensor) -> list[Boxes]:
        """Return the boxes that the detector finds in each picture, best first.

        Args:
            output: the core's output, (B, numbers).

        Raises:
            Misdeclared: exit 2 as results.check_boxes, or if a label is of no class or the detector's code raises an
                error.
        """
        with self._answering(output, False) as detector:
            return self._boxes_of(detector, self._blank(output))

    def _losses_of(self, detector: nn.Module, pictures: list[Tensor], targets: Sequence[Boxes]) -> dict[str, Tensor]:
        # in torchvision's detectors class 0 is the background
        told = [{**one, "boxes": one["boxes"].to(pictures[0].dtype), "labels": one["labels"] + 1} for one in targets]
        found = detector(pictures, told)
        check_losses(found, self._arch)
        return found

    def _boxes_of(self, detector: nn.Module, pictures: list[Tensor]) -> list[Boxes]:
        found = detector(pictures)
        check_boxes(found, len(pictures), self._arch)
        return [self._sorted(one) for one in found]

    def _sorted(self, found: Boxes) -> Boxes:
        order = found["scores"].argsort(descending=True, stable=True)
        if library(self._arch):  # untrained, RetinaNet and FCOS may return boxes of the background
            order = order[found["labels"][order] > 0]
        labels = found["labels"][order] - 1
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self._classes:
            wrong = int(labels.min() if labels.min() < 0 else labels.max()) + 1
            raise Misdeclared(
                f"--arch {self._arch}: it returns label {wrong}; "
                f"labels of {counted(self._classes, 'class')} run from 1 to {self._classes}",
                "0 is the background: add 1 to the labels that it returns, and subtract 1 from its targets' labels",
            )
        return {"boxes": found["boxes"][order], "labels": labels, "scores": found["scores"][order]}

    def plain_losses(self, pictures: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]:
        """Return the losses that the detector gives by itself, with its core as it is."""
        with self._running(pictures.device, True) as detector:
            return self._losses_of(detector, list(pictures), targets)

    def plain_boxes(self, pictures: Tensor) -> list[Boxes]:
        """Return the boxes that the detector gives by itself, with its core as it is, best first."""
        with self._running(pictures.device, False) as detector:
            return self._boxes_of(detector, list(pictures))

    def _blank(self, output: Tensor) -> list[Tensor]:
        """Return empty pictures. Only their sizes count."""
        return list(output.new_zeros(len(output), 3, self.side, self.side).unbind())

    @contextmanager
    def _answering(self, output: Tensor, training: bool) -> Iterator[nn.Module]:
        """Yield the detector with core modules that return parts of `output`.

        Tensors that only modules of the core read are not in `output`. They become NaN of the right sizes.
        """
        detector, given = self._detector, answers(self._stages)
        parts = output.split([math.prod(shape) for _, shape in given], 1)
        known = {  # contiguous, as the detector's code may call view
            place: part.reshape(len(output), *shape).contiguous()
            for part, (place, shape) in zip(parts, given, strict=True)
        }
        modules, blank = [detector.get_submodule(stage.name) for stage in self._stages], output.new_full((), math.nan)
        for number, (stage, module) in enumerate(zip(self._stages, modules, strict=True)):
            values = [known.get((number, n), blank.expand(len(output), *shape)) for n, shape in enumerate(stage.shapes)]
            answer = tree_unflatten(values, stage.gives)
            module.forward = lambda *args, answer=answer, **kwargs: answer  # type: ignore[method-assign]
        try:
            with self._running(output.device, training):
                yield detector
        finally:
            for module in modules:
                del module.forward

    @contextmanager
    def _running(self, device: torch.device, training: bool) -> Iterator[nn.Module]:
        """Yield the detector in a mode, without its core: modules of the core may belong to a network in another mode."""
        before = self._detector.training
        self._bring_to(device)
        try:
            self._set(training)
            with as_misdeclared(self._arch, CALLED):
                yield self._detector
        finally:
            self._set(before)

    def _set(self, training: bool) -> None:
        for module in self._around:
            module.training = training

    def _bring_to(self, device: torch.device) -> None:
        """Move to a device what the code around the core may read: buffers and parameters that do not train."""
        for module in self._detector.modules():
            for name, held in module._buffers.items():
                if held is not None and held.device != device:
                    module._buffers[name] = held.to(device)
            for value in module._parameters.values():
                if value is not None and not value.requires_grad and value.device != device:
                    value.data = value.data.to(device)
