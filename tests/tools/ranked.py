"""Train for some steps in the environment's number of processes: python -m tests.tools.ranked DTYPE STEPS VARIANT...

The first rank prints the losses and the final network as JSON.
"""

from __future__ import annotations

import json
import sys

import torch

from engine.data import catalogue
from engine.data.splits import steps as count_of_steps
from engine.system import ranks
from engine.tasks.classification import CLASSIFICATION
from engine.training import together
from engine.training.progress import FitConfig
from engine.training.recipe import Recipe
from engine.training.step import Step
from prune.sparsity import penalty
from quant.hooks import hooks
from quant.placement import meet
from quant.prepare import prepare
from quant.quantizer_spec import for_inputs, quantizer
from quant.spec import QuantSpec
from scripts.speed.variants import FLOAT, SPECS, network

BATCH = 24
RECIPE = Recipe(1, BATCH, lr=0.02)


def losses(variant: str, dtype: torch.dtype, steps: int) -> tuple[list[float], list[float]]:
    """Return the loss, penalty and right answers of all steps as one list, and a sum of each final tensor of the network.

    The steps are the last ones of an epoch: in the very last, the ranks' shares differ in size.
    """
    kind = variant if variant in SPECS and variant != "ternary" else FLOAT
    model = network("nin", 8, kind, cfg=[12] * 8)
    if variant == "ternary":  # binary inputs are signs of numbers that differ from 0 only by the order of sums
        model = prepare(model, meet(QuantSpec(quantizer("t"), for_inputs(32)), model))
    model = model.to(dtype).train()
    term = penalty(1e-3) if variant == "sparse" else None
    data = catalogue.load("digits", image_size=8, workers=0)
    optimizer, schedule = RECIPE.start(model, steps)
    found = []
    with together.shared(model, model) as compute:
        step = Step(
            compute, model, FitConfig(RECIPE, codes=variant not in (FLOAT, "sparse")), CLASSIFICATION, optimizer, term,
            hooks(model, 1).get("constrain"),
        )  # fmt: skip
        first = count_of_steps(len(data.train), BATCH) - steps
        for number, (images, target) in enumerate(data.train.training_batches(BATCH, 1, 0, first), first):
            whole = min(BATCH, len(data.train) - number * BATCH)
            found += step.gradients(images.to(dtype), target, whole).tolist()
            step.update()
            schedule.step()
    found.append(CLASSIFICATION.evaluate(model, data.test).loss)
    return found, [value.double().abs().sum().item() for value in model.state_dict().values()]


def main(dtype: str, steps: str, *variants: str) -> None:
    torch.set_num_threads(1)
    with ranks.joined("cpu"):
        found = {variant: losses(variant, getattr(torch, dtype), int(steps)) for variant in variants}
        if ranks.is_first():
            print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
