"""Pictures of a trained network: its batch norm scales, and a layer's inputs with the ranges of calibration. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.augment import generator
from engine.data.info import Split
from engine.errors import BAD_CHECKPOINT, UserError
from engine.system import figures
from models.layers.quantizers.affine import AffineActivation
from models.layers.quantizers.base import Quantized
from quant.calibrate import BINS, METHODS, Histogram

DPI = 110
WIDTHS = (8, 4)
"""Bits of the codes that ranges are drawn for, a panel each."""

SHOWN = 128
"""Bars that the bins of a histogram are added up to."""


@dataclass(frozen=True)
class Scales:
    """The size of every batch norm scale of a file that a channel may be dropped by, (N,)."""

    label: str
    sizes: Tensor


@torch.no_grad()
def inputs(model: nn.Module, name: str, split: Split, pictures: int, seed: int, batch: int = 128) -> Histogram:
    """Count what a layer reads while quant.ptq measures it: with coded weights and with inputs as they are.

    Args:
        model: as quant.prepare gives it.
        name: of the layer.
        pictures, seed: quant.ptq draws the same ones.

    Raises:
        UserError: exit 3 for inputs that are not finite.
    """
    order = torch.randperm(len(split), generator=generator(seed, 0))[:pictures]

    def watch(look: Callable[[Tensor], None]) -> None:
        handles = [m.register_forward_hook(_pass_on) for m in model.modules() if isinstance(m, AffineActivation)]
        handles.append(model.get_submodule(name).register_forward_pre_hook(lambda _, given: look(_number(given[0]))))
        try:
            for images, _ in split.batches(batch, order):
                model(images.to(dtype))
        finally:
            for handle in handles:
                handle.remove()

    was_training, dtype, ends = model.training, next(model.parameters()).dtype, list[float]()
    model.eval()
    try:
        watch(lambda x: ends.extend(edge.item() for edge in x.aminmax()))
        if not all(map(isfinite, ends)):
            raise UserError(f"the inputs of {name} are not finite", "take another checkpoint", BAD_CHECKPOINT)
        found = Histogram(min(ends), max(ends))
        watch(found.add)
    finally:
        model.train(was_training)
    return found


def _pass_on(module: nn.Module, given: tuple[Tensor], output: Quantized) -> Quantized:
    return Quantized(given[0], None)


def _number(given: Tensor | Quantized) -> Tensor:
    """Return what a layer reads, also where it shares its quantizer with others."""
    return given.codes if isinstance(given, Quantized) else given


def ranges(found: Histogram, bits: int) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest value that each method of calibration does not clip, for asymmetric codes."""
    return {name: method(found, bits, False) for name, method in METHODS.items()}


def of_inputs(found: Histogram, title: str) -> bytes:
    """Draw the histogram with the ranges in it, a panel for each of WIDTHS."""
    figure, axes = figures.pyplot().subplots(len(WIDTHS), 1, figsize=(10, 6), layout="constrained", sharex=True)
    counts = found.counts.reshape(SHOWN, BINS // SHOWN).sum(1).numpy()
    edges = np.linspace(found.low, found.high, SHOWN + 1)
    for axis, bits in zip(axes, WIDTHS, strict=True):
        axis.stairs(counts, edges, fill=True, color="0.8", label="inputs")
        for number, (name, (low, high)) in enumerate(ranges(found, bits).items()):
            for edge in (low, high) if low < 0 else (high,):
                label = f"{name}: {low:.3g} to {high:.3g}" if edge == high else None
                axis.axvline(edge, color=f"C{number}", linestyle=("-", "--", "-.", ":")[number], label=label)
        axis.set(yscale="log", ylabel="values (count, log scale)", title=f"{bits} bit")
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes[-1].set_xlabel("input of the layer (no unit)")
    figure.suptitle(title, parse_math=False)
    return figures.drawn(figure, DPI)


def of_scales(files: Sequence[Scales]) -> bytes:
    """Draw a panel a file, over the same bins, with the number of channels in each bin."""
    figure, axes = figures.pyplot().subplots(
        len(files), 1, figsize=(10, 2.2 * len(files)), layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    edges = np.linspace(0, max(float(found.sizes.max()) for found in files), 61)
    for axis, found in zip(axes[:, 0], files, strict=True):
        _panel(axis, found, edges)
    axes[-1, 0].set_xlabel("|batch norm scale| (no unit)")
    figure.suptitle("batch norm scales")
    return figures.drawn(figure, DPI)


def _panel(axis: Any, found: Scales, edges: Any) -> None:
    half = found.sizes.median().item()
    axis.hist(found.sizes.numpy(), edges, color="C1")
    axis.axvline(half, color="0.3", linestyle="--", label=f"half of {len(found.sizes):,}:\nbelow {half:.3g}")
    axis.set_title(found.label, parse_math=False, fontsize=10)
    axis.set_ylabel("channels")
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
