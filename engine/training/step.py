"""One training step: compute the gradients of a batch, then update the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.numerics import precision, sums
from engine.system import ranks
from engine.tasks.base import Target, Task
from engine.training.progress import FitConfig


class Step:
    """A training step, for one batch after the other.

    Args:
        compute: a module that computes the same as `model`, with its parameters; often the model itself.
        penalty: a term of the loss that depends only on the network.
        constrain: a change of the network after each update, such as clipping.
    """

    def __init__(
        self, compute: nn.Module, model: Any, config: FitConfig, task: Task, optimizer: torch.optim.Optimizer,
        penalty: Callable[[Any], Tensor] | None = None, constrain: Callable[[Any], object] | None = None,
    ) -> None:  # fmt: skip
        self.compute, self.model, self.config, self.task = compute, model, config, task
        self.optimizer, self.penalty, self.constrain = optimizer, penalty, constrain
        self.device = next(model.parameters()).device
        on_gpu = self.device.type == "cuda"
        self._rates = [torch.zeros((), device=self.device) for _ in optimizer.param_groups] if on_gpu else []

    def start_epoch(self) -> None:
        """Called at the start of an epoch, when a hook may have changed the network, such as by freezing a range."""

    def gradients(self, images: Tensor, target: Target, whole: int | None = None) -> Tensor:
        """Compute the gradients of a batch.

        Args:
            whole: number of pictures of all ranks together, if there are several ranks.

        Returns:
            float64, (3,): the mean task loss, the mean penalty, and the number of right answers.
        """
        share = len(images) / whole if whole and ranks.count() > 1 else 1.0
        with precision.training(self.config.precision, self.device, self.config.codes):
            output = self.compute(images)
        loss = self.task.loss(output, target, self.config.recipe)
        added = self.penalty(self.model) if self.penalty else loss.new_zeros(())
        self.optimizer.zero_grad(set_to_none=True)
        weight = share * ranks.count()  # ranks' gradients are averaged, but their shares may differ by one picture
        (loss + added if weight == 1 else loss * weight + added).backward()
        right = self.task.right(output, target)
        found = torch.stack([loss.detach(), added.detach(), right]).double()
        if ranks.count() == 1:
            return found
        return sums.total(found * found.new_tensor([share, 1 / ranks.count(), 1]))

    def update(self) -> None:
        """Update the network by its gradients."""
        with self._rates_as_tensors():
            self.optimizer.step()
        if self.constrain:
            self.constrain(self.model)

    def tell_rates(self) -> None:
        """Copy the current learning rates to the GPU."""
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=bool(self._rates)):
            rate.fill_(group["lr"])

    @contextmanager
    def _rates_as_tensors(self) -> Iterator[None]:
        """Let the optimizer read learning rates from GPU tensors, as a recorded step freezes plain numbers."""
        if not self._rates:
            yield
            return
        groups = self.optimizer.param_groups
        before = [group["lr"] for group in groups]
        if not torch.cuda.is_current_stream_capturing():
            self.tell_rates()
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate
            yield
        finally:
            for group, rate in zip(groups, before, strict=True):
                group["lr"] = rate
