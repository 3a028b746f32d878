"""What layers become: where their input gets codes, and which matrix they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from deploy.lowering import matrices
from deploy.lowering.builder import Builder, numbers
from deploy.operations.base import Codes, Matrix
from deploy.operations.layers import Affine, Convolution, Linear, Quantize, Transposed
from deploy.operations.places import Pad
from models.graph.flow import module, readers
from models.layers.fold import Flip
from models.layers.quantizers.base import Signs, Steps

Grid = Steps | Signs | None


def layer(builder: Builder, node: fx.Node, ends: frozenset[str], picture: Steps) -> int:
    """A convolution or linear layer, merged or not.

    Args:
        ends: the float layers that get weights of 8 bits.
        picture: the codes of what such a layer reads, if that is the picture.
    """
    found: Any = module(builder.form, node)
    source = builder.source()
    if found.padding_mode != "zeros" if isinstance(found, nn.Conv2d) else False:
        source = builder.add(Pad, source, part=".pad", sides=_padding(found), kind=found.padding_mode)
    is_end = str(node.target) in ends
    grid = _grid(found) or builder.values[source].grid
    shown = picture if grid is None and is_end and _is_picture(builder, source) else None
    matrix = _matrix(builder, node, found, grid, shown, is_end)
    if builder.values[source].grid is None and (used := grid or shown) is not None:
        source = coded(builder, source, used)
    if isinstance(found, nn.Linear):
        return builder.add(Linear, source, matrix=matrix)
    around = _padding(found) if found.padding_mode == "zeros" else (0, 0, 0, 0)
    return builder.add(
        Convolution, source, matrix=matrix, stride=tuple(found.stride), padding=around, dilation=tuple(found.dilation),
        groups=found.groups,
    )  # fmt: skip


def coded(builder: Builder, source: int, grid: Steps | Signs) -> int:
    """A value in codes; layers that read it by one grid share them."""
    for number, operation in enumerate(builder.operations):
        if isinstance(operation, Quantize) and (operation.sources, operation.grid) == ((source,), grid):
            return number + 1
    return builder.add(Quantize, source, part=".input", grid=grid)


def _is_picture(builder: Builder, source: int) -> bool:
    """Whether a value is the picture, perhaps with a border of its own numbers or of 0."""
    while source:
        operation = builder.operations[source - 1]
        if not (isinstance(operation, Pad) and operation.fill == 0):
            return False
        source = operation.sources[0]
    return True


def _grid(found: nn.Module) -> Grid:
    quantizer: Any = getattr(found, "input_quantizer", None)
    return quantizer.grid() if quantizer is not None else None


def _matrix(builder: Builder, node: fx.Node, found: Any, grid: Grid, shown: Steps | None, is_end: bool) -> Matrix:
    """
    Args:
        grid: of the input in training, whose scale is in the layer's.
        shown: of the picture, where the layer reads that and was trained on its numbers.
    """
    stored: Tensor = found.codes if hasattr(found, "codes") else found.weight
    bias = np.zeros(len(stored)) if found.bias is None else found.bias.detach().cpu().double().numpy()
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
        return matrices.on_grid(weight, scale, bias)
    return matrices.beside_grid(weight, scale, bias)


def _flip(builder: Builder, node: fx.Node) -> Any:
    """The signs that a max-pool's output is turned by, where one stands between a layer and what looks at signs."""
    for reader in readers(node):
        if isinstance(module(builder.form, reader), nn.MaxPool2d):
            for behind in readers(reader):
                if isinstance(found := module(builder.form, behind), Flip):
                    return found.flip.cpu().double().numpy()
    return None


def _padding(found: nn.Conv2d) -> tuple[int, int, int, int]:
    """Above, below, left, right; "same" has one more behind, as torch does it."""
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
    """A quantizer that several layers share: it stands in the graph by itself."""
    found: Any = module(builder.form, node)
    grid = found.grid()
    return builder.source() if grid is None else coded(builder, builder.source(), grid)
