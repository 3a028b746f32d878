"""Compare an input quantizer with what it declares: a scale that does not depend on the input, and a grid.

Merging and packing rely on both. A quantizer from outside may have neither, and trains all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.quantizers.base import Quantized, Quantizer, Signs, Steps

HINT = (
    "give the quantizer a scale that its state fixes and a `grid` (CONTRIBUTING.md), or leave inputs float: --Abits 32"
)
_SIZES = 2.0 ** torch.arange(-24, 25, dtype=torch.float64) * 1.1  # of no power of two, where grids have their edges
_PROBE = torch.cat([-_SIZES.flip(0), _SIZES]).float()


@torch.no_grad()
def fault_of_scale(quantizer: Quantizer) -> str:
    """Return what keeps a layer from being merged, in words; empty if nothing does.

    A merged layer multiplies its sums by one stored scale, whatever its input is.
    """
    scales = [quantizer(x).scale for x in (_PROBE.new_zeros(1, 1), _probe())]
    if any(scale is None for scale in scales):
        same = scales == [None, None]
    else:
        same = torch.equal(*scales)
    return "" if same else f"the scale of its input quantizer, {_name(quantizer)}, depends on the input"


@torch.no_grad()
def fault_of_grid(quantizer: Quantizer) -> str:
    """Return why the quantizer's grid does not describe its codes, in words; empty if it does.

    Codes may differ by one step: an engine multiplies where the quantizer divides.
    """
    x, grid = _probe(), quantizer.grid()
    found = _numbers(quantizer(x))
    if grid is None:
        return "" if torch.equal(found, x) else f"its input quantizer, {_name(quantizer)}, has no grid"
    told, most = _on(grid, x)
    return (
        ""
        if bool(((found - told).abs() <= most).all())
        else f"the grid of its input quantizer, {_name(quantizer)}, gives other codes"
    )


def _probe() -> Tensor:
    return _PROBE.reshape(-1, 1)


def _numbers(quantized: Quantized) -> Tensor:
    codes, scale = quantized
    return codes if scale is None else codes * scale


def _on(grid: Steps | Signs, x: Tensor) -> tuple[Tensor, float]:
    """Return the numbers that a grid gives for x, and how far the quantizer's may be from them."""
    if isinstance(grid, Steps):
        return (x * grid.inverse).round().clamp(grid.low, grid.high) * grid.scale, grid.scale * 1.001
    edge = 0.0 if grid.edge is None else grid.edge
    return (x > edge).float() - (x < -edge).float(), 0.0


def _name(quantizer: Quantizer) -> str:
    return type(quantizer).__name__
