"""Rules for layers: where their input is quantized, and which matrix they get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from deploy.lowering import matrices
from deploy.lowering.builder import Builder, numbers
from deploy.lowering.ends import Ends, is_picture, of_bytes, of_pixels
from deploy.lowering.grids import Grid, coded, grid_of_input
from deploy.lowering.rows import along
from deploy.operations.base import Codes, Matrix
from deploy.operations.layers import Affine, Convolution, Linear, Transposed
from deploy.operations.places import Pad
from models.graph.flow import module, readers
from models.layers.fold import Flip
from models.layers.quantizers.base import Steps
from models.layers.quantizers.pixels import PixelCodes


def layer(builder: Builder, node: fx.Node, ends: Ends) -> int:
    """Add a convolution or linear layer, merged or not."""
    found: Any = module(builder.form, node)
    source, around = builder.source(), (0, 0, 0, 0)
    if isinstance(found, nn.Conv2d):
        around = padding(found.kernel_size, found.padding, found.dilation)
        if found.padding_mode != "zeros":
            source = builder.add(Pad, source, part=".pad", sides=around, kind=found.padding_mode)
            around = (0, 0, 0, 0)
    if isinstance(getattr(found, "input_quantizer", None), PixelCodes):
        return of_pixels(builder, found, source, around, ends, _bias(found), _flip(builder, node))
    is_end = str(node.target) in ends.names
    grid = grid_of_input(node, found) or builder.values[source].grid
    shown = is_end and grid is None and isinstance(found, nn.Conv2d) and is_picture(builder, source)
    if shown and _weights(found).is_floating_point() and found.groups == 1 and getattr(found, "scale", None) is None:
        return of_bytes(builder, found, source, around, ends, _weights(found), _bias(found))
    matrix = _matrix(builder, node, found, grid, ends.grid if shown else None, is_end)
    if isinstance(found, nn.Linear):
        return linear(builder, source, matrix, grid)
    if builder.values[source].grid is None and (used := ends.grid if shown else grid) is not None:
        source = coded(builder, source, used)
    return builder.add(
        Convolution, source, matrix=matrix, stride=tuple(found.stride), padding=around, dilation=tuple(found.dilation),
        groups=found.groups,
    )  # fmt: skip


def linear(builder: Builder, source: int, matrix: Matrix, grid: Grid = None) -> int:
    """Add a linear layer on the last axis. Codes that several layers read keep their shape.

    Args:
        grid: of the input; None: of floats.
    """

    def add(rows: int, _: int) -> int:
        return builder.add(Linear, rows if grid is None else coded(builder, rows, grid), matrix=matrix)

    if builder.values[source].grid is not None:
        return builder.add(Linear, source, matrix=matrix)
    return along(builder, source, len(builder.shape(source)) - 1, add)


def line(builder: Builder, node: fx.Node) -> int:
    """Add a one-dimensional convolution, which computes in float, as a convolution of a picture with one row.

    Its padding is zeros: capture makes a call of any other.
    """
    found: Any = module(builder.form, node)
    channels, length = builder.shape(builder.source())
    source = builder.reshaped(builder.source(), (channels, 1, length), ".row")
    around = padding(found.kernel_size, found.padding, found.dilation)
    made = builder.add(
        Convolution, source, part=".convolution", matrix=matrices.scaled(numbers(found.weight[:, :, None]), None, _bias(found)),
        stride=(1, *found.stride), padding=(0, 0, *around), dilation=(1, *found.dilation), groups=found.groups,
    )  # fmt: skip
    return builder.reshaped(made, builder.given())


def _weights(found: Any) -> Tensor:
    return found.codes if hasattr(found, "codes") else found.weight


def _matrix(builder: Builder, node: fx.Node, found: Any, grid: Grid, shown: Steps | None, is_end: bool) -> Matrix:
    """Return the matrix of a layer.

    Args:
        grid: of the input in training; the layer's scale includes its scale.
        shown: grid of the picture, if the layer reads the picture and was trained on its floats.
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
    return matrices.scaled(weight, scale, bias)


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


def padding(kernel: Sequence[int], given: str | Sequence[int], dilation: Sequence[int]) -> Any:
    """Return the padding above, below, left, right; of a line, left and right. As in torch, "same" puts the odd one behind.

    Args:
        kernel, given, dilation: the settings of a convolution.
    """
    if given == "valid":
        return (0, 0) * len(kernel)
    if given == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(side for total in totals for side in (total // 2, total - total // 2))
    return tuple(int(side) for side in given for _ in range(2))


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
