"""The sensitivity of layers: accuracy with one layer at a time at few bits or with some channels set to 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from engine.data.splits import Data
from engine.tasks.base import Task
from models import cost
from models.graph.channels.classes import channels
from models.graph.flow import first_layers
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked
from prune.families import families, scores
from quant.calibrate import calibrate
from quant.placement import quantizable
from quant.prepare import prepare
from quant.spec import affine_spec

BITS = (8, 4, 2)
SHARES = (0.25, 0.5, 0.75)
CALIBRATION_PICTURES = 256


def table(model: NormalForm, data: Data, batch: int, task: Task) -> Iterator[tuple[str, str, float]]:
    """Yield (layer, change, score) for every layer and change, without training.

    Bits: the weights (one grid a filter) and the input of one convolution or linear layer are quantized: asymmetric, BN
    folded, clipped by mse on 256 training pictures. The picture itself stays float. Pruning: of the channels that one
    layer makes, those with the smallest BN scales are set to 0. If some have no BN scale, weights decide.
    """
    ran = dict.fromkeys(row.name for row in cost.layers(model, data.info.image_size))  # in the order of execution
    can, first = quantizable(model), first_layers(model)
    layers = [name for name in ran if name in can]
    for name in layers:
        others = tuple(other for other in layers if other != name)
        for bits in BITS:
            spec = replace(affine_spec(bits, bits, 1, True), exceptions=others, bn_momentum=None)
            if name in first:
                spec = replace(spec, float_inputs=(name,))
            quantized = prepare(model, spec)
            calibrate(quantized, data.train, "mse", CALIBRATION_PICTURES)
            yield name, f"{bits} bit", task.evaluate(quantized, data.test, batch).score
    found = channels(model, model.captured.whole)
    by_gate, by_weight = scores(model, found), scores(model, found, "l1")
    for family in families(found, by_weight):
        worth = by_gate if all(cls in by_gate for cls in family.classes) else by_weight
        ascending = sorted(family.classes, key=lambda cls: (worth[cls], cls))
        for share in SHARES:
            silent = masked(model, found, ascending[: round(len(ascending) * share)])
            yield family.name, f"-{100 * share:g} %", task.evaluate(silent, data.test, batch).score
