"""Recipes (optimizer, schedule, length) and the defaults of float training; quant/recipes.py adds its own.

torch is imported only when a recipe starts, as --help shows the defaults from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.cli.datasets import BOXES

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Recipe:
    """The settings of a training, besides the data.

    Args:
        optimizer: "sgd" (Nesterov, momentum 0.9) or "adam".
        schedule: "onecycle" (cosine from lr / 25 up to lr in 30 % of the steps, then down to almost 0) or "steps"
            (x 0.1 at `steps`).
        steps: epochs at whose start the learning rate falls.
    """

    epochs: int
    batch_size: int
    optimizer: str = "sgd"
    lr: float = 0.1
    weight_decay: float = 5e-4
    schedule: str = "onecycle"
    steps: tuple[int, ...] = ()
    label_smoothing: float = 0.0

    def start(
        self, model: nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Return a fresh optimizer and schedule; the schedule counts steps, not epochs."""
        import torch

        parameters = decay_groups(model, self.weight_decay)
        on_gpu = all(p.is_cuda for p in model.parameters()) or None  # one kernel for all tensors
        optimizer: torch.optim.Optimizer
        if self.optimizer == "adam":
            optimizer = torch.optim.Adam(parameters, self.lr, fused=on_gpu, capturable=bool(on_gpu))
        else:
            optimizer = torch.optim.SGD(parameters, self.lr, momentum=0.9, nesterov=True, fused=on_gpu)
        if self.schedule == "onecycle":
            return optimizer, torch.optim.lr_scheduler.OneCycleLR(
                optimizer, self.lr, total_steps + 1, cycle_momentum=False
            )
        per_epoch = total_steps // self.epochs
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [epoch * per_epoch for epoch in self.steps])

    def changed(self, **values: Any) -> Recipe:
        """Return a copy with the values that are not None."""
        return replace(self, **{k: v for k, v in values.items() if v is not None})


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters so that only those with more than one axis decay.

    These are the weights of layers, but also layer scales, class tokens and position embeddings. On a BN scale, decay would be
    a second penalty.
    """
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


ORIGINAL = Recipe(300, 50, "adam", 0.01, 0.0, "steps", (80, 130, 180, 230, 280))
"""The original repository's recipe: Adam, lr 0.01, batch 50, x 0.1 at epochs 80, 130, 180, 230, 280."""

_EPOCHS = {"digits": 10, "scenes": 16, "default": 60}
_REFINE_EPOCHS = {"digits": 6, "scenes": 8, "default": 20}
_BATCH = {"digits": 32, "scenes": 16, "coco": 16, "yolo": 16, "default": 128}


def for_float(dataset: str, refine: bool = False) -> Recipe:
    """Return the default recipe of float networks on a data set; refining has fewer epochs and a lower rate."""
    epochs = _REFINE_EPOCHS if refine else _EPOCHS
    boxes = (
        dataset in BOXES
    )  # torchvision's decay for detectors, and a learning rate that is stable with 16 pictures a step
    return Recipe(
        epochs=epochs.get(dataset, epochs["default"]),
        batch_size=_BATCH.get(dataset, _BATCH["default"]),
        lr=(0.015 if refine else 0.04) if boxes else 0.02 if refine else 0.05,
        weight_decay=1e-4 if boxes else 5e-4,
        label_smoothing=0.0 if dataset == "digits" or boxes else 0.1,
    )
