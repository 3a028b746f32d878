"""Rules for layers: where their input is quantized, and which matrix they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from deploy.lowering import matrices
from deploy.lowering.builder import Builder, name_of, numbers
from deploy.operations.base import Codes, Matrix
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.places import Pad
from engine.errors import BAD_CHECKPOINT, UserError
from models.graph.flow import module, readers
from models.layers.fold import Flip
from models.layers.quantizers import declared
from models.layers.quantizers.base import Quantizer, Signs, Steps

Grid = Steps | Signs | None


@dataclass(frozen=True)
class Ends:
    """How the first and last layers of an integer network are stored.

    Args:
        names: of the layers whose float weights get 8 bits.
        mean, std: of the pictures, one number for each channel.
        grid: of a normalised picture's codes, for a first layer whose weights are codes already.
        exact: whether biases keep fp32 precision.
    """

    names: frozenset[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grid: Steps
    exact: bool = False


def layer(builder: Builder, node: fx.Node, ends: Ends) -> int:
    """Add a convolution or linear layer, merged or not."""
    found: Any = module(builder.form, node)
    source, around = builder.source(), (0, 0, 0, 0)
    if isinstance(found, nn.Conv2d):
        around = _padding(found)
        if found.padding_mode != "zeros":
            source = builder.add(Pad, source, part=".pad", sides=around, kind=found.padding_mode)
            around = (0, 0, 0, 0)
    is_end = str(node.target) in ends.names
    grid = _grid(node, found) or builder.values[source].grid
    shown = is_end and grid is None and isinstance(found, nn.Conv2d) and _is_picture(builder, source)
    if shown and _weights(found).is_floating_point() and found.groups == 1 and getattr(found, "scale", None) is None:
        return _of_bytes(builder, found, source, around, ends)
    matrix = _matrix(builder, node, found, grid, ends.grid if shown else None, is_end, ends.exact)
    if builder.values[source].grid is None and (used := ends.grid if shown else grid) is not None:
        source = coded(builder, source, used)
    if isinstance(found, nn.Linear):
        return builder.add(Linear, source, matrix=matrix)
    return builder.add(
        Convolution, source, matrix=matrix, stride=tuple(found.stride), padding=around, dilation=tuple(found.dilation),
        groups=found.groups,
    )  # fmt: skip


def _weights(found: Any) -> Tensor:
    return found.codes if hasattr(found, "codes") else found.weight


def _of_bytes(builder: Builder, found: nn.Conv2d, source: int, around: Any, ends: Ends) -> int:
    """Add a first layer that reads the picture's bytes. Only the border's zeros are rounded."""
    if any(around):
        source = builder.add(Pad, source, part=".border", sides=around)
    spread, middle = (np.array([255 * n for n in each], np.float32) for each in (ends.std, ends.mean))
    pixels = builder.add(Affine, source, part=".bytes", multiplier=spread, shift=middle)
    source = coded(builder, pixels, Steps(1.0, 1.0, 0, 255))
    matrix = matrices.of_bytes(_weights(found), _bias(found), ends.mean, ends.std)
    return builder.add(Convolution, source, matrix=matrix, stride=tuple(found.stride), dilation=tuple(found.dilation))


def coded(builder: Builder, source: int, grid: Steps | Signs) -> int:
    """Add the codes of a value; layers that read it on the same grid share them."""
    for number, operation in enumerate(builder.operations):
        if isinstance(operation, Quantize) and (operation.sources, operation.grid) == ((source,), grid):
            return number + 1
    return builder.add(Quantize, source, part=".input", grid=grid)


def _is_picture(builder: Builder, source: int) -> bool:
    """Return whether a value is the picture, padded or not."""
    while source:
        operation = builder.operations[source - 1]
        if not (isinstance(operation, Pad) and operation.fill == 0):
            return False
        source = operation.sources[0]
    return True


def _grid(node: fx.Node, found: nn.Module) -> Grid:
    quantizer: Any = getattr(found, "input_quantizer", None)
    return _grid_of(node, quantizer) if quantizer is not None else None


def _grid_of(node: fx.Node, quantizer: Quantizer) -> Grid:
    """Return the grid of an input quantizer.

    Raises:
        UserError: exit 3 if no grid describes its codes.
    """
    if fault := declared.fault_of_grid(quantizer):
        raise UserError(f"{name_of(node)}: {fault}", declared.HINT, BAD_CHECKPOINT)
    return quantizer.grid()


def _matrix(
    builder: Builder, node: fx.Node, found: Any, grid: Grid, shown: Steps | None, is_end: bool, exact: bool
) -> Matrix:
    """Return the matrix of a layer.

    Args:
        grid: of the input in training; the layer's scale includes its scale.
        shown: grid of the picture, if the layer reads the picture and was trained on its floats.
        exact: see Ends.
    """
    stored, bias = _weights(found), _bias(found)
    scale = None if getattr(found, "scale", None) is None else numbers(found.scale)
    weight: Codes | Any
    if not stored.is_floating_point():
        weight = matrices.coded(stored, found.weight_bits)
        if grid is not None and scale is None:
            return matrices.for_sign(weight, bias, _flip(builder, node))
    elif is_end:
        weight, steps = matrices.low_bits(stored)
        scale = steps if scale is None else steps * scale
    else:
        weight = numbers(stored)
    if isinstance(weight, Codes) and shown is not None:
        scale = np.float32(shown.scale) * (np.ones(len(stored), np.float32) if scale is None else scale)
    if isinstance(weight, Codes) and (grid is not None or shown is not None):
        assert scale is not None
        return matrices.on_grid(weight, scale, bias, exact)
    return matrices.beside_grid(weight, scale, bias)


def _bias(found: Any) -> NDArray[np.float64]:
    return np.zeros(len(_weights(found))) if found.bias is None else found.bias.detach().cpu().double().numpy()


def _flip(builder: Builder, node: fx.Node) -> Any:
    """Return the signs by which a Flip behind the layer's max-pool multiplies; None without one."""
    for reader in readers(node):
        if isinstance(module(builder.form, reader), nn.MaxPool2d):
            for behind in readers(reader):
                if isinstance(found := module(builder.form, behind), Flip):
                    return found.flip.cpu().double().numpy()
    return None


def _padding(found: nn.Conv2d) -> tuple[int, int, int, int]:
    """Return the padding above, below, left, right. As in torch, "same" puts the odd one below and right."""
    if found.padding == "valid":
        return (0, 0, 0, 0)
    if found.padding == "same":
        totals = [d * (k - 1) for d, k in zip(found.dilation, found.kernel_size, strict=True)]
        return (totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2)
    rows, columns = (int(side) for side in found.padding)
    return (rows, rows, columns, columns)


def transposed(builder: Builder, node: fx.Node) -> int:
    found: Any = module(builder.form, node)
    if found.padding_mode != "zeros":
        raise builder.refused(f"{found.padding_mode} padding")
    count = found.out_channels
    return builder.add(
        Transposed, builder.source(), weight=numbers(found.weight),
        shift=numbers(torch.zeros(count) if found.bias is None else found.bias), stride=tuple(found.stride),
        padding=tuple(found.padding), more=tuple(found.output_padding), dilation=tuple(found.dilation),
        groups=found.groups,
    )  # fmt: skip


def turned(builder: Builder, node: fx.Node) -> int:
    found: Any = module(builder.form, node)
    return builder.add(Affine, builder.source(), multiplier=numbers(found.flip.float()))


def shared_codes(builder: Builder, node: fx.Node) -> int:
    """Add the codes of a quantizer that several layers share; it is a node of its own in the graph."""
    found: Any = module(builder.form, node)
    grid = _grid_of(node, found)
    return builder.source() if grid is None else coded(builder, builder.source(), grid)


def coded_value(builder: Builder, node: fx.Node) -> int:
    """Add the fp32 numbers of codes; the codes may come from a shared quantizer."""
    found: Any = module(builder.form, node)
    source, grid = builder.source(), _grid(node, found)
    if grid is None:
        return source
    if builder.values[source].grid is None:
        source = coded(builder, source, grid)
    return builder.add(Decode, source)
