"""This toolkit's own step and evaluation, as its commands run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from engine.data.info import DataInfo
from engine.data.splits import TensorSplit
from engine.system import precision
from engine.system.precision import Precision
from engine.tasks.classification import CLASSIFICATION
from engine.training.recipe import for_float
from models.fused.view import chosen
from models.graph.normal import NormalForm
from quant import recipes
from scripts.speed.reference import PICTURES, plain
from scripts.speed.variants import FLOAT, SPECS, network

LONG = 10**9
"""Pictures of a training that is long enough for everything that pays in one."""


def pictures(side: int, device: torch.device, count: int = PICTURES) -> TensorSplit:
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)
    info = DataInfo("random", "random pictures", 10, side, (0.5,) * 3, (0.25,) * 3)
    return TensorSplit(images, torch.arange(count) % 10, info, device)


def step_of(arch: str, side: int, variant: str, batch: int, device: torch.device, how: Precision) -> Callable[[], None]:
    """One training step of a fresh network, in the precision that is named."""
    model = network(arch, side, variant).to(device).to(memory_format=torch.channels_last)
    return step_with(model, variant, side, batch, device, how)


def step_with(
    model: NormalForm, variant: str, side: int, batch: int, device: torch.device, how: Precision
) -> Callable[[], None]:
    spec = SPECS[variant]
    compute = (None if variant == FLOAT else chosen(model, "auto", LONG)) or model
    recipe = for_float("cifar10") if spec is None else recipes.for_spec(spec, "cifar10", refine=True)
    optimizer, schedule = recipe.start(model, 10**6)
    batches = _forever(pictures(side, device), batch)

    def step() -> None:
        images, target = next(batches)
        with precision.training(how, device, variant != FLOAT):
            output = compute(images)
        loss = CLASSIFICATION.loss(output, target, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.stack([loss.detach().double(), CLASSIFICATION.right(output, target).double()]).tolist()
        optimizer.step()
        schedule.step()

    return step


def _forever(split: TensorSplit, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        yield from split.training_batches(batch, 1, epoch)
        epoch += 1


def evaluation_of(
    arch: str, side: int, variant: str, count: int, device: torch.device, how: Precision, textbook: bool = False
) -> Callable[[], None]:
    """One evaluation of `count` pictures.

    Args:
        textbook: the textbook's layers, in NCHW memory.
    """
    model: nn.Module = network(arch, side, variant).to(device)
    model = plain(model, variant) if textbook else model.to(memory_format=torch.channels_last)
    split = pictures(side, device, count)
    with torch.no_grad():
        model(next(split.batches(50))[0])  # ranges and steps need a batch
    model.eval()

    @torch.no_grad()
    def run() -> None:
        for images, _ in split.batches(500):
            images = images.contiguous() if textbook else images
            with precision.training(how, device, variant != FLOAT):
                model(images)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run
