"""The growth of a step's cost with batch, width and pruned share, and of pruning's cost with a network's size."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from deploy.racing.clock import race
from engine.numerics.layout import channels_last
from engine.numerics.precision import Precision
from models import forms, registry
from models.graph.channels.classes import channels
from models.graph.surgery import narrow
from prune.plan import plan
from prune.widths import Subject
from scripts.speed import ours
from scripts.speed.turns import Turn
from scripts.speed.variants import FLOAT

BATCHES = (10, 50, 200)
WIDTHS = (0.25, 0.5, 1.0, 2.0)
KEPT = (1.0, 0.75, 0.5, 0.25)
SIZES = (1, 2, 4, 10)
"""Multiples of NIN's widths. At 10 times the widths, a network has 100 times the weights."""
NETWORK = "nin"


def steps(device: torch.device, how: Precision, seconds: float) -> Iterator[dict[str, float | str]]:
    """Yield the milliseconds of a float step of NIN: one row for each batch, width and share of channels kept."""
    full = forms.build(NETWORK).cfg
    runs: dict[tuple[str, float], Turn] = {}
    for batch in BATCHES:
        runs["batch", batch] = _step(full, batch, device, how)
    for times in WIDTHS:
        runs["width", times] = _step([max(2, int(width * times)) for width in full], 50, device, how)
    for share in KEPT:
        runs["kept", share] = _step([max(2, int(width * share)) for width in full], 50, device, how)
    found = race({f"{what} {value}": run for (what, value), run in runs.items()}, seconds)
    for ((what, value), run), timed in zip(runs.items(), found.values(), strict=True):
        yield {"what": what, "value": value, "ms": timed.milliseconds / run.steps}


def _step(cfg: list[int], batch: int, device: torch.device, how: Precision) -> Turn:
    model = channels_last(forms.build(NETWORK, cfg).train().to(device))
    return Turn(ours.step_with(model, FLOAT, 32, batch, device, how), device)


def surgery() -> Iterator[dict[str, float | str]]:
    """Yield the seconds for choosing and cutting half of the channels, in networks of up to 100 times NIN's weights."""
    full = forms.build(NETWORK).cfg
    for times in SIZES:
        plain = registry.build(NETWORK, [width * times for width in full])
        form = forms.form_of(plain, NETWORK, None, 10, 32)
        with torch.no_grad():
            for name, value in form.named_parameters():
                if value.ndim == 1 and name.endswith("weight"):
                    value.uniform_()
        found = channels(form, form.captured.whole)
        started = time.perf_counter()
        chosen = plan(Subject(plain, form, found, NETWORK), 0.5)
        narrow.narrowed(plain, form, found, chosen.dropped, NETWORK)
        count = sum(value.numel() for value in form.parameters())
        yield {"what": "surgery", "value": count, "seconds": time.perf_counter() - started}
