"""Compare an input quantizer with what it declares: a scale that does not depend on the input, and a grid.

Merging and packing rely on both. A quantizer from outside may have neither, and trains all the same.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from models.layers.quantizers.base import Quantizer, Signs, Steps
from models.layers.quantizers.guard import file_of, guarded

HINT = (
    "give the quantizer a scale that its state fixes and a `grid` (CONTRIBUTING.md), or leave inputs float: --Abits 32"
)
NEAR = 0.003
"""The most of the probed numbers whose code may be the neighbour: those within rounding of the middle of two codes."""
_SIZES = 2.0 ** torch.arange(-24, 25, dtype=torch.float64) * 1.1  # of no power of two, where grids have their edges


@torch.no_grad()
def fault_of_scale(quantizer: Quantizer) -> str:
    """Return what keeps a layer from being merged, in words; empty if nothing does.

    A merged layer multiplies its sums by one stored scale, whatever its input is.

    Args:
        quantizer: of an input, in eval mode.
    """
    probe = _probe(quantizer)
    scales = [quantizer(x).scale for x in (torch.zeros_like(probe), probe)]
    if any(scale is None for scale in scales):
        same = scales == [None, None]
    else:
        same = torch.equal(*scales)
    return "" if same else f"the scale of its input quantizer, {_name(quantizer)}, depends on the input"


@torch.no_grad()
def fault_of_grid(quantizer: Quantizer) -> str:
    """Return why the quantizer's grid does not describe its codes, in words; empty if it does.

    Args:
        quantizer: of an input, in eval mode.
    """
    grid = grid_of(quantizer)
    with guarded(file_of(type(quantizer))):
        return _fault_of(quantizer, grid)


def grid_of(quantizer: Quantizer) -> Steps | Signs | None:
    """Return the quantizer's grid, not yet checked.

    Raises:
        UserError: exit 2 for an exception of its file.
    """
    with guarded(file_of(type(quantizer))):
        return quantizer.grid()


def _fault_of(quantizer: Quantizer, grid: object) -> str:
    if grid is None:
        codes, scale = quantizer(x := _probe(quantizer))
        is_number = torch.equal(codes if scale is None else codes * scale, x)
        return "" if is_number else f"its input quantizer, {_name(quantizer)}, has no grid"
    if not isinstance(grid, (Steps, Signs)):
        return f"the grid of its input quantizer, {_name(quantizer)}, is a {type(grid).__name__}, not Steps or Signs"
    right = _steps_agree(quantizer, grid) if isinstance(grid, Steps) else _signs_agree(quantizer, grid)
    return "" if right else f"the grid of its input quantizer, {_name(quantizer)}, gives other codes"


def _steps_agree(quantizer: Quantizer, grid: Steps) -> bool:
    """Return whether codes have the grid's scale, and are the grid's: a few may be neighbours, as an engine multiplies."""
    x = _probe(quantizer, (grid.low - 1) / grid.inverse, (grid.high + 1) / grid.inverse)
    codes, scale = quantizer(x)
    steps = x.new_ones(1) if scale is None else scale.flatten()
    off = (codes - (x * grid.inverse).round().clamp(grid.low, grid.high)).abs()
    scales_agree = bool(((steps - grid.scale).abs() <= 1e-5 * abs(grid.scale)).all())
    return scales_agree and bool((off <= 1).all()) and (off > 0).float().mean().item() <= NEAR


def _signs_agree(quantizer: Quantizer, grid: Signs) -> bool:
    edge = grid.edge or 0.0
    x = _probe(quantizer, -2 * edge - 1, 2 * edge + 1)
    codes, scale = quantizer(x)
    return scale is None and torch.equal(codes, (x > edge).to(x) - (x < -edge).to(x))


def _probe(quantizer: Quantizer, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return numbers of all sizes and many between `low` and `high`, (N, 1), none of them 0, where the quantizer is."""
    between = torch.linspace(low, high, 1000, dtype=torch.float64) + (high - low) / 7919
    found = torch.cat([-_SIZES.flip(0), _SIZES, between[between != 0]]).float().reshape(-1, 1)
    held = next(chain(quantizer.parameters(), quantizer.buffers()), found)
    return found.to(held.device)


def _name(quantizer: Quantizer) -> str:
    return type(quantizer).__name__
