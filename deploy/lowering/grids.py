"""Rules for codes: quantize a value on the grid of a layer's quantizer, and turn codes into numbers."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from deploy.lowering.builder import Builder, name_of
from deploy.operations.layers import Decode, Quantize
from engine.errors import BAD_CHECKPOINT, UserError
from models.graph.flow import module
from models.layers.quantizers import promises
from models.layers.quantizers.base import Quantizer, Signs, Steps

Grid = Steps | Signs | None


def coded(builder: Builder, source: int, grid: Steps | Signs) -> int:
    """Add the codes of a value; layers that read it on the same grid share them."""
    for number, operation in enumerate(builder.operations):
        if isinstance(operation, Quantize) and (operation.sources, operation.grid) == ((source,), grid):
            return number + 1
    return builder.add(Quantize, source, part=".input", grid=grid)


def grid_of_input(node: fx.Node, found: nn.Module) -> Grid:
    quantizer: Any = getattr(found, "input_quantizer", None)
    return _grid_of(node, quantizer) if quantizer is not None else None


def _grid_of(node: fx.Node, quantizer: Quantizer) -> Grid:
    """Return the grid of an input quantizer.

    Raises:
        UserError: exit 3 if no grid describes its codes.
    """
    if fault := promises.fault_of_grid(quantizer):
        raise UserError(f"{name_of(node)}: {fault}", promises.HINT, BAD_CHECKPOINT)
    return quantizer.grid()


def shared_codes(builder: Builder, node: fx.Node) -> int:
    """Add the codes of a quantizer that several layers share; it is a node of its own in the graph."""
    found: Any = module(builder.form, node)
    grid = _grid_of(node, found)
    return builder.source() if grid is None else coded(builder, builder.source(), grid)


def coded_value(builder: Builder, node: fx.Node) -> int:
    """Add the fp32 numbers of codes; the codes may come from a shared quantizer."""
    found: Any = module(builder.form, node)
    source, grid = builder.source(), grid_of_input(node, found)
    if grid is None:
        return source
    if builder.values[source].grid is None:
        source = coded(builder, source, grid)
    return builder.add(Decode, source)
