"""Which layers can bear what: accuracy with one layer at a time at few bits, or with some of its channels silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from engine.data.splits import Data
from engine.tasks.base import Task
from models import cost
from models.channels import Network
from prune.plan import PrunePlan
from prune.surgery import gates_of, masked
from quant.calibrate import calibrate
from quant.prepare import prepare
from quant.spec import affine

BITS = (8, 4, 2)
SHARES = (0.25, 0.5, 0.75)
CALIBRATION_PICTURES = 256


def table(model: Network, data: Data, batch: int, task: Task) -> Iterator[tuple[str, str, float]]:
    """Give (layer, change, score) for every layer and change; nothing is trained.

    Bits: weights (a grid a filter) and input of one convolution or linear layer, asymmetric, BN folded, clipped by mse on 256
    training pictures; the picture itself is left alone. Pruning: the channels with the smallest BN scales of one gate, silenced.
    """
    ran = dict.fromkeys(row.name for row in cost.layers(model, data.info.image_size))  # in that order
    layers = [name for name in ran if isinstance(model.get_submodule(name), (nn.Conv2d, nn.Linear))]
    for name in layers:
        others = tuple(other for other in layers if other != name)
        for bits in BITS:
            spec = replace(affine(bits, bits, 1, True), exceptions=others, bn_momentum=None)
            if name == model.ends[0]:
                spec = replace(spec, float_inputs=(name,))
            quantized = prepare(model, spec)
            calibrate(quantized, data.train, "mse", CALIBRATION_PICTURES)
            yield name, f"{bits} bit", task.evaluate(quantized, data.test, batch).score
    gates = gates_of(model)
    for number, gate in enumerate(gates):
        for share in SHARES:
            width = max(gate.unit, round(gate.width * (1 - share)) // gate.unit * gate.unit)
            lone = replace(gate, producer_groups=1, readers=())  # silenced, not cut: groups need not stay equal
            kept = [other.choose(other.width) for other in gates]
            kept[number] = lone.choose(width)
            plan = PrunePlan(
                tuple(g.name for g in gates), tuple(g.width for g in gates), tuple(kept),
                tuple(g.unit for g in gates), share, 1,
            )  # fmt: skip
            yield (
                gate.name,
                f"-{100 * share:g} %",
                task.evaluate(masked(model, plan), data.test, batch).score,
            )
