"""Operations on fp32 numbers with PyTorch's own functions, which are faster than the reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.operations import functions as of_numbers, layers, pools
from deploy.operations.base import Codes, Matrix, Operation, Value
from deploy.reference.functions import EXACT
from deploy.reference.run import RULES, tensor

_NATIVE: dict[str, Callable[..., Tensor]] = {
    "clamp": torch.clamp, "elu": F.elu, "exp": torch.exp, "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu, "mish": F.mish, "relu": F.relu, "sigmoid": torch.sigmoid, "silu": F.silu,
    "sqrt": torch.sqrt, "tanh": torch.tanh, "erf": torch.erf, "log": torch.log, "log1p": torch.log1p,
    "expm1": torch.expm1, **EXACT,
}  # fmt: skip

_POOLS: dict[str, Callable[..., Tensor]] = {"mean": F.adaptive_avg_pool2d, "max": F.adaptive_max_pool2d}
_MEANS: dict[str, Callable[..., Tensor]] = {"mean": torch.mean, "sum": torch.sum}

Step = Callable[..., Tensor]


def _native(kind: str, settings: tuple[float, ...], x: Tensor) -> Tensor:
    return _NATIVE[kind](x, *settings)


def folded(matrix: Matrix) -> tuple[Tensor, Tensor]:
    """Return a matrix's weight and bias in fp32 with the scale folded in."""
    weight = tensor(matrix.weight.values if isinstance(matrix.weight, Codes) else matrix.weight).double()
    scale = torch.ones(len(weight)).double() if matrix.scale is None else tensor(matrix.scale).double()
    bias = torch.zeros(len(weight)).double() if matrix.shift is None else tensor(matrix.shift).double()
    if matrix.bias is not None:
        bias = bias + tensor(matrix.bias).double() * scale
    return (weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))).float(), bias.float()


def step(operation: Operation, given: list[Value], value: Value) -> Step:
    """Return a function that computes an operation on numbers, or a layer whose sums are not integers."""
    if isinstance(operation, layers.Convolution) and not operation.matrix.whole(given[0]):
        return _convolution(operation)
    if isinstance(operation, layers.Linear) and not operation.matrix.whole(given[0]):
        weight, bias = folded(operation.matrix)
        return lambda x: F.linear(x.float(), weight, bias)
    if isinstance(operation, layers.Transposed):
        weight, bias = tensor(operation.weight), tensor(operation.shift)
        return lambda x: F.conv_transpose2d(
            x, weight, bias, operation.stride, operation.padding, operation.more, operation.groups, operation.dilation
        )
    if isinstance(operation, of_numbers.Function):
        return partial(_native, operation.kind, operation.settings)
    if isinstance(operation, of_numbers.Reduce) and operation.kind in ("mean", "sum"):
        axes, reduce = [axis + 1 for axis in operation.axes], _MEANS[operation.kind]
        return lambda x: reduce(x, axes, keepdim=True)
    if isinstance(operation, of_numbers.Product):
        return torch.matmul
    if isinstance(operation, of_numbers.Softmax):
        share = torch.log_softmax if operation.log else torch.softmax
        return lambda x: share(x, operation.axis + 1)
    if isinstance(operation, of_numbers.Standardize) and operation.axes[-1] == len(value.shape) - 1:
        shape = value.shape[operation.axes[0] :]
        if operation.axes == tuple(range(operation.axes[0], len(value.shape))):
            return lambda x: F.layer_norm(x, shape, eps=operation.eps)
    if isinstance(operation, pools.AdaptivePool):
        pool = _POOLS[operation.kind]
        return lambda x: pool(x, operation.size)
    if isinstance(operation, pools.AveragePool) and operation.padding[::2] == operation.padding[1::2]:
        around = (operation.padding[0], operation.padding[2])
        return lambda x: F.avg_pool2d(
            x, operation.kernel, operation.stride, around, operation.ceil, operation.counts_padding, operation.divisor
        )
    if isinstance(operation, layers.Affine):
        return _affine(operation, len(value.shape))
    rule = RULES[type(operation)]
    return lambda *x: rule(operation, given, value, len(x[0]) if x else 1, *x)


def _convolution(operation: layers.Convolution) -> Step:
    weight, bias = folded(operation.matrix)
    weight = weight.to(memory_format=torch.channels_last)
    above, below, left, right = operation.padding
    even = (above, left) == (below, right)

    def run(x: Tensor) -> Tensor:
        x = x.float()
        if not even:
            x = F.pad(x, (left, right, above, below))
        around = (above, left) if even else (0, 0)
        return F.conv2d(x, weight, bias, operation.stride, around, operation.dilation, operation.groups)

    return run


def _affine(operation: layers.Affine, rank: int) -> Step:
    """Return an affine function; multiplier and shift are applied in one pass."""
    shape = (-1, *(1,) * (rank - operation.axis - 1))
    multiplier = None if operation.multiplier is None else tensor(operation.multiplier).reshape(shape)
    shift = None if operation.shift is None else tensor(operation.shift).reshape(shape)
    if multiplier is None:
        return lambda x: x if shift is None else x + shift
    return (lambda x: x * multiplier) if shift is None else lambda x: torch.addcmul(shift, x, multiplier)
