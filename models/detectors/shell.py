"""A detector's own code around its core: losses and boxes of numbers that its core has given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from models.detectors.stages import Stage

Boxes = dict[str, Tensor]
"""Of a picture: "boxes" (n, 4), x1, y1, x2, y2 in pixels; "labels" (n,), from 0 on; of an answer "scores" (n,), too."""


class Shell:
    """What a detector does with the numbers of its core. The modules of the core are called, and answer with these.

    Args:
        stages: of the core.
        side: of the pictures.
    """

    def __init__(self, detector: nn.Module, stages: Sequence[Stage], side: int) -> None:
        self._detector, self._stages, self.side = detector, list(stages), side
        core = {module for stage in stages for module in detector.get_submodule(stage.name).modules()}
        self._around = [module for module in detector.modules() if module not in core]

    def __deepcopy__(self, memo: dict[int, Any]) -> Shell:
        """It learns nothing: copies of a network share it."""
        return self

    def losses(self, output: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]:
        """The losses of a batch, as the detector names them.

        Args:
            output: of the core, (B, numbers).
        """
        # the detectors of torchvision call the background class 0
        told = [
            {**target, "boxes": target["boxes"].to(output.dtype), "labels": target["labels"] + 1} for target in targets
        ]
        with self._answering(output, True) as detector:
            found: dict[str, Tensor] = detector(self._blank(output), told)
        return found

    @torch.no_grad()
    def boxes(self, output: Tensor) -> list[Boxes]:
        """What the detector finds in each picture, best first."""
        with self._answering(output, False) as detector:
            found = detector(self._blank(output))
        return [
            {"boxes": one["boxes"], "labels": one["labels"] - 1, "scores": one["scores"]}
            for one in ({key: value[one["scores"].argsort(descending=True, stable=True)] for key, value in one.items()}
                        for one in found)
        ]  # fmt: skip

    def _blank(self, output: Tensor) -> list[Tensor]:
        """Pictures that nobody looks at: only their sizes count."""
        return list(output.new_zeros(len(output), 3, self.side, self.side).unbind())

    @contextmanager
    def _answering(self, output: Tensor, training: bool) -> Iterator[nn.Module]:
        """The detector with modules that answer: the last with the output, those before with tensors of the right sizes.

        Code that reads the numbers of these meets NaN.
        """
        detector, before = self._detector, self._detector.training
        modules = [detector.get_submodule(stage.name) for stage in self._stages]
        sizes = [math.prod(shape) for shape in self._stages[-1].shapes]
        last = [part.reshape(len(output), *shape).contiguous()  # as its own code views it
                for part, shape in zip(output.split(sizes, 1), self._stages[-1].shapes, strict=True)]  # fmt: skip
        for number, (stage, module) in enumerate(zip(self._stages, modules, strict=True), 1):
            blank = output.new_full((), math.nan)
            values = last if number == len(modules) else [blank.expand(len(output), *shape) for shape in stage.shapes]
            answer = tree_unflatten(values, stage.gives)
            module.forward = lambda *args, answer=answer, **kwargs: answer  # type: ignore[method-assign]
        try:
            self._set(training)  # the modules of the core may be at work in a network that is in another mode
            yield detector
        finally:
            self._set(before)
            for module in modules:
                del module.forward

    def _set(self, training: bool) -> None:
        for module in self._around:
            module.training = training
