"""A detector's own code around its core: losses and boxes of numbers that its core has given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from engine.cli.archs import library
from models.check import Misdeclared, user_code
from models.detectors.stages import CALLED, Stage, answers

Boxes = dict[str, Tensor]
"""Of a picture: "boxes" (n, 4), x1, y1, x2, y2 in pixels; "labels" (n,), from 0 on; of an answer "scores" (n,), too."""
PARTS = ("boxes", "labels", "scores")


class Shell:
    """What a detector does with the numbers of its core. The modules of the core are called, and answer with these.

    Args:
        stages: of the core.
        side: of the pictures.
        arch: what messages call it.
        classes: of objects, without a background.
    """

    def __init__(self, detector: nn.Module, stages: Sequence[Stage], side: int, arch: str, classes: int) -> None:
        self._detector, self._stages, self.side = detector, list(stages), side
        self._arch, self._classes = arch, classes
        core = {module for stage in stages for module in detector.get_submodule(stage.name).modules()}
        self._around = [module for module in detector.modules() if module not in core]

    def __deepcopy__(self, memo: dict[int, Any]) -> Shell:
        """It learns nothing: copies of a network share it."""
        return self

    def losses(self, output: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]:
        """The losses of a batch, as the detector names them.

        Args:
            output: of the core, (B, numbers).

        Raises:
            Misdeclared: exit 2 for what is no dict of tensors, and for what the detector's code raises.
        """
        # the detectors of torchvision call the background class 0
        told = [
            {**target, "boxes": target["boxes"].to(output.dtype), "labels": target["labels"] + 1} for target in targets
        ]
        with self._answering(output, True) as detector:
            found = detector(self._blank(output), told)
        if not isinstance(found, dict) or not found or not all(isinstance(loss, Tensor) for loss in found.values()):
            raise Misdeclared(f"--arch {self._arch}: in training it gives no dict of losses", CALLED)
        return found

    @torch.no_grad()
    def boxes(self, output: Tensor) -> list[Boxes]:
        """What the detector finds in each picture, best first.

        Raises:
            Misdeclared: exit 2 for what is no list of dicts, for a label of no class, and for what the detector's code raises.
        """
        with self._answering(output, False) as detector:
            found = detector(self._blank(output))
        if not isinstance(found, list) or not all(isinstance(one, dict) and {*PARTS} <= one.keys() for one in found):
            raise Misdeclared(
                f"--arch {self._arch}: in evaluation it gives no list of dicts with {', '.join(PARTS)}", CALLED
            )
        return [self._sorted(one) for one in found]

    def _sorted(self, found: Boxes) -> Boxes:
        order = found["scores"].argsort(descending=True, stable=True)
        if library(self._arch):  # RetinaNet's and FCOS's may answer "background" before they are trained
            order = order[found["labels"][order] > 0]
        labels = found["labels"][order] - 1
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self._classes:
            wrong = int(labels.min() if labels.min() < 0 else labels.max()) + 1
            raise Misdeclared(
                f"--arch {self._arch}: it gives label {wrong}; labels of {self._classes} classes count from 1 to {self._classes}",
                "0 is the background: add 1 to the labels that it gives, and take 1 off those that it is given",
            )
        return {"boxes": found["boxes"][order], "labels": labels, "scores": found["scores"][order]}

    def check(self, output: Tensor) -> None:
        """Let the detector make losses and boxes of made-up numbers.

        Raises:
            Misdeclared: exit 2 if its code reads what passes between modules of the core; as `losses` and `boxes`.
        """
        half = output.new_tensor([[0.25, 0.25, 0.75, 0.75]]) * self.side
        one = {"boxes": half, "labels": torch.zeros(1, dtype=torch.int64, device=output.device)}
        with torch.no_grad():
            losses = self.losses(output, [one] * len(output))
            self.boxes(output)
        if any(bool(loss.isnan().any()) for loss in losses.values()) and not bool(output.isnan().any()):
            raise Misdeclared(
                f"--arch {self._arch}: its code reads numbers that pass from one module of --core to the next",
                "name the modules that stand between, too, or one that holds them all",
            )

    def _blank(self, output: Tensor) -> list[Tensor]:
        """Pictures that nobody looks at: only their sizes count."""
        return list(output.new_zeros(len(output), 3, self.side, self.side).unbind())

    @contextmanager
    def _answering(self, output: Tensor, training: bool) -> Iterator[nn.Module]:
        """The detector with modules that answer with the output, and where others read them with NaN of the right sizes."""
        detector, before = self._detector, self._detector.training
        self._bring_to(output.device)
        given = answers(self._stages)
        parts = output.split([math.prod(shape) for _, shape in given], 1)
        known = {  # contiguous, as its own code views it
            place: part.reshape(len(output), *shape).contiguous()
            for part, (place, shape) in zip(parts, given, strict=True)
        }
        modules, blank = [detector.get_submodule(stage.name) for stage in self._stages], output.new_full((), math.nan)
        for number, (stage, module) in enumerate(zip(self._stages, modules, strict=True)):
            values = [known.get((number, n), blank.expand(len(output), *shape)) for n, shape in enumerate(stage.shapes)]
            answer = tree_unflatten(values, stage.gives)
            module.forward = lambda *args, answer=answer, **kwargs: answer  # type: ignore[method-assign]
        try:
            self._set(training)  # the modules of the core may be at work in a network that is in another mode
            with user_code(self._arch, CALLED):
                yield detector
        finally:
            self._set(before)
            for module in modules:
                del module.forward

    def _set(self, training: bool) -> None:
        for module in self._around:
            module.training = training

    def _bring_to(self, device: torch.device) -> None:
        """Bring to a device what the code around may read: buffers, and numbers that nobody trains."""
        for module in self._detector.modules():
            for name, held in module._buffers.items():
                if held is not None and held.device != device:
                    module._buffers[name] = held.to(device)
            for value in module._parameters.values():
                if value is not None and not value.requires_grad and value.device != device:
                    value.data = value.data.to(device)
