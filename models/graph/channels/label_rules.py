"""The rules of layers for labels: a layer reads the labels of its input, and creates new ones or passes them on.

Each rule returns the labels of the layer's output, or None if the layer mixes channels with other axes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from models.graph.channels.labels import along, spread
from models.graph.channels.notes import Notes

FEW = 2
"""Most inputs a group with which a grouped convolution loses whole groups."""


def conv(notes: Notes, name: str, module: Any, x: Tensor) -> Tensor | None:
    """Note a convolution. With small groups it loses whole groups, otherwise equally many channels in each group."""
    weight, groups = module.weight, module.groups
    if _is_whole(notes, name, module):
        return whole(notes, module, x)
    read, rows = notes.read(x, 1, module.groups), notes.fresh(module.out_channels)
    if read is not None:
        notes.lie(weight, 1, read, groups, rows=False)
    elif groups > 1:
        notes.fix(rows, f"mixed with other axes: {notes.here}")
    notes.lie(weight, 0, rows, groups, makes=True)
    _shift(notes, module, rows, groups)
    return notes.out(rows, x)


def _is_whole(notes: Notes, name: str, module: Any) -> bool:
    """Return whether a convolution loses whole groups. Those with small groups do if the walk decides."""
    if module.groups > 1 and notes.decides and module.in_channels // module.groups <= FEW:
        notes.whole.add(name)
    return module.groups > 1 and name in notes.whole


def whole(notes: Notes, module: Any, x: Tensor) -> Tensor | None:
    """Note a grouped convolution that loses whole groups: the inputs and outputs of a group go together."""
    read = along(x, 1)
    if read is None:
        notes.fix(x, f"mixed with other axes: {notes.here}")
        return None
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    rows, read = read.abs(), read.abs().reshape(module.groups, inputs)
    if (inputs, outputs) != (1, 1):
        rows = notes.fresh(module.out_channels)
        notes.tie(read[:, :1], read)
        notes.tie(read[:, :1], rows.reshape(module.groups, outputs))
    notes.lie(module.weight, 0, read.flatten() if isinstance(module, _ConvTransposeNd) else rows)
    _shift(notes, module, rows)
    return notes.out(rows, x)


def transposed(notes: Notes, name: str, module: Any, x: Tensor) -> Tensor | None:
    """Note a transposed convolution, whose weight is (in, out / groups, ...): an entry of axis 1 serves all groups."""
    if _is_whole(notes, name, module):
        return whole(notes, module, x)
    read, rows = notes.read(x, 1, module.groups), notes.fresh(module.out_channels)
    if read is not None:
        notes.lie(module.weight, 0, read, module.groups, rows=False)
    elif module.groups > 1:
        notes.fix(rows, f"mixed with other axes: {notes.here}")
    of_each = rows.reshape(module.groups, -1)
    notes.tie(of_each[:1], of_each)
    notes.lie(module.weight, 1, of_each[0], makes=True)
    _shift(notes, module, rows, module.groups)
    return notes.out(rows, x)


def linear(notes: Notes, module: nn.Linear, x: Tensor) -> Tensor:
    """Note a linear layer over the last axis."""
    read, rows = notes.read(x, x.ndim - 1), notes.fresh(module.out_features)
    if read is not None:
        notes.lie(module.weight, 1, read, rows=False)
    notes.lie(module.weight, 0, rows, makes=True)
    _shift(notes, module, rows)
    return spread(rows, (*x.shape[:-1], module.out_features), x.ndim - 1)


def norm(notes: Notes, module: _BatchNorm, x: Tensor) -> Tensor | None:
    """Note a batch norm, all of whose tensors go with the channels."""
    found = along(x, 1)
    if found is None:
        return None
    rows = found.abs()
    for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
        if tensor is not None:
            scale_or_shift = tensor is module.weight or tensor is module.bias
            learns = isinstance(tensor, nn.Parameter)  # a scale that does not train does not rank its channel
            notes.lie(tensor, 0, rows, norm=learns and tensor is module.weight, zeroed=scale_or_shift)
    out = notes.out(rows, x)
    return out if module.weight is not None else -out  # without a scale, a masked channel becomes -mean / std


def slopes(notes: Notes, tensor: Tensor, x: Tensor) -> Tensor | None:
    """Note a PReLU with one slope for each channel."""
    found = along(x, 1)
    if found is None:
        return None
    notes.lie(tensor, 0, found.abs())
    return x


def _shift(notes: Notes, module: Any, rows: Tensor, groups: int = 1) -> None:
    if module.bias is not None:
        notes.lie(module.bias, 0, rows, groups)
