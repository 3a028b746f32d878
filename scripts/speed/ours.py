"""The toolkit's training step and evaluation, as its commands run them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from engine.data.info import DataInfo
from engine.data.splits import TensorSplit
from engine.numerics import precision
from engine.numerics.batches import at_a_time
from engine.numerics.evaluator import evaluator
from engine.numerics.layout import channels_last
from engine.numerics.precision import Precision
from engine.numerics.reuse import reusing
from engine.tasks.classification import CLASSIFICATION
from engine.training import recorded
from engine.training.progress import FitConfig
from engine.training.recipe import for_float
from engine.training.tally import Tally
from models.fused.view import chosen
from models.graph.normal import NormalForm
from quant import recipes
from quant.hooks import hooks
from scripts.speed.reference import BATCH, PICTURES, plain
from scripts.speed.variants import FLOAT, SPECS, network

LONG = 10**9
"""Pictures of a training long enough for every optimisation to pay off."""
EPOCH = 500
"""Steps between reads of the sums on a GPU."""


def pictures(side: int, device: torch.device, count: int = PICTURES) -> TensorSplit:
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)
    info = DataInfo("random", "random pictures", 10, side, (0.5,) * 3, (0.25,) * 3)
    return TensorSplit(images, torch.arange(count) % 10, info, device)


def step_of(arch: str, side: int, variant: str, batch: int, device: torch.device, how: Precision) -> Callable[[], None]:
    """Return a function that runs one training step of a fresh network in this precision."""
    model = channels_last(network(arch, side, variant).to(device))
    return step_with(model, variant, side, batch, device, how)


def step_with(
    model: NormalForm, variant: str, side: int, batch: int, device: torch.device, how: Precision
) -> Callable[[], None]:
    spec = SPECS[variant]
    compute = chosen(model, "auto", LONG, batch) or model
    recipe = for_float("cifar10") if spec is None else recipes.for_spec(spec, "cifar10", refine=True)
    config = FitConfig(recipe, precision=how, codes=variant != FLOAT)
    optimizer, schedule = recipe.start(model, 10**6)
    constrain = hooks(model, 1).get("constrain")
    done = recorded.kind(config, device)(compute, model, config, CLASSIFICATION, optimizer, None, constrain)
    batches, tally, count = _forever(pictures(side, device), batch), Tally(device.type == "cuda"), itertools.count(1)

    def step() -> None:
        images, target = next(batches)
        number = next(count)
        tally.add(number, done.gradients(images, target), batch)
        done.update()
        schedule.step()
        if number % EPOCH == 0:
            tally.read()

    return step


def _forever(split: TensorSplit, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        yield from split.training_batches(batch, 1, epoch)
        epoch += 1


def evaluation_of(
    arch: str, side: int, variant: str, count: int, device: torch.device, how: Precision, textbook: bool = False
) -> Callable[[], None]:
    """Return a function that evaluates a network once on `count` pictures.

    Args:
        textbook: use the textbook's layers, in NCHW memory.
    """
    model: nn.Module = network(arch, side, variant).to(device)
    model = plain(model, variant) if textbook else channels_last(model)
    split, batch = pictures(side, device, count), BATCH if textbook else at_a_time(None, device.type)
    with torch.no_grad():
        model(next(split.batches(50))[0])  # ranges and steps need a batch
    compute = model.eval() if textbook else evaluator(model.eval(), LONG, batch)
    how = "exact" if variant == FLOAT and how == "fp32" and not textbook else how  # as scores are computed

    @torch.no_grad()
    def run() -> None:
        with reusing():
            for images, _ in split.batches(batch):
                images = images.contiguous() if textbook else images
                with precision.training(how, device, variant != FLOAT):
                    compute(images)

    return run
