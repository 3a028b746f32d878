"""Programs of every operation with every kind of setting: those that are exact in any runtime, and the others."""

from __future__ import annotations

from math import inf

import numpy as np

from deploy.operations.base import Matrix, Operation
from deploy.operations.functions import Combine, Constant, Function, Product, Reduce, Slopes, Softmax, Standardize
from deploy.operations.layers import Affine, Convolution, Decode, Linear, Quantize, Transposed
from deploy.operations.places import Concatenate, Pad, Permute, Reshape, Slice, Take, Upsample
from deploy.operations.pools import AdaptivePool, AveragePool, MaxPool
from models.layers.quantizers.base import Signs, Steps
from tests.deploy.by_hand import codes, drawn, op, reals

EVEN, UNEVEN = (1, 1, 1, 1), (1, 0, 0, 1)
BYTES, WEIGHT = Steps(40.0, 1 / 40, -128, 127), drawn(-60, 60, 6, 3, 3, 3)
SCALE = np.array([0.01, -0.02, 0.03, -0.01, 0.02, 0.004], np.float32)
WHOLE = Matrix(codes(WEIGHT), SCALE, drawn(-99, 99, 6).astype(np.int32), reals(6))
POOLS = {
    "by ceil": ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), True),
    "by ceil, other sides": ((3, 2), (2, 3), UNEVEN, (1, 1), True),
    "by ceil, less than its padding": ((3, 3), (4, 5), EVEN, (1, 1), True),
    "dilated": ((3, 3), (2, 2), EVEN, (1, 2), False),
    "dilated, a kernel beyond the edge": ((2, 3), (2, 2), EVEN, (2, 2), True),
}  # fmt: skip
EXACT: dict[str, list[Operation]] = {
    **{
        f"max-pool {name}": [
            op(MaxPool, 0, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil=ceil)
        ]
        for name, (kernel, stride, padding, dilation, ceil) in POOLS.items()
    },
    "max-pool adaptive": [op(AdaptivePool, 0, kind="max", size=(4, 1))],
    "concatenate": [op(Function, 0, kind="abs"), op(Concatenate, 1, 0, 0, axis=0)],
    "concatenate columns": [op(Function, 0, kind="abs"), op(Concatenate, 1, 0, axis=2)],
    "concatenate a constant": [op(Constant, numbers=reals(2, 8, 7)), op(Concatenate, 1, 0, axis=0)],
    "constant": [op(Constant, numbers=reals(4))],
    "concatenate a sum of constants": [
        op(Constant, numbers=reals(1, 8, 7)),
        op(Constant, numbers=reals(2, 1, 7)),
        op(Combine, 1, 2, kind="max"),
        op(Concatenate, 3, 0, axis=0),
    ],
    "slice channels": [op(Slice, 0, axis=0, start=1, stop=2)],
    "slice rows": [op(Slice, 0, axis=1, start=1, stop=8, step=3)],
    "take channels": [op(Take, 0, axis=0, places=np.array([2, 0, 0, 1], np.int32))],
    "take rows": [op(Take, 0, axis=1, places=np.array([7, 3, 3], np.int32))],
    "take columns": [op(Take, 0, axis=2, places=np.arange(6, -1, -1, np.int32))],
    **{kind: [op(Function, 0, kind=kind)] for kind in ("ceil", "floor", "round", "sign")},
    **{
        f"{kind} of two": [
            op(Function, 0, kind="round"),
            op(Reduce, 1, kind="max", axes=(1,)),
            op(Combine, 1, 2, kind=kind),
        ]
        for kind in ("eq", "ne", "gt", "ge", "lt", "le")
    },
    "keep": [op(Function, 0, kind="relu"), op(Combine, 0, 1, kind="keep")],
    "keep rows": [op(Function, 0, kind="round"), op(Slice, 1, axis=2, start=0, stop=1), op(Combine, 0, 2, kind="keep")],
    "pad": [op(Pad, 0, sides=(1, 2, 3, 0), fill=-0.5, channels=(1, 2))],
    "pad by less than nothing": [op(Pad, 0, sides=(-1, 2, -3, 0), fill=0.5)],
    "pad mirrored": [op(Pad, 0, sides=(1, 2, 6, 0), kind="reflect")],
    "pad around": [op(Pad, 0, sides=(1, 8, 7, 2), kind="circular")],
    "pad rows around": [op(Pad, 0, sides=(0, 3, 0, 0), kind="circular")],
    "pad nearest": [op(Pad, 0, sides=(1, 9, 3, 0), kind="replicate")],
    "reshape": [op(Reshape, 0, shape=(4, 6, 7))],
    "reshape to one number": [op(Reduce, 0, kind="max", axes=(0, 1, 2)), op(Reshape, 1, shape=())],
    "permute": [op(Permute, 0, axes=(2, 0, 1))],
    "nearest": [op(Upsample, 0, kind="nearest", size=(16, 21))],
    "nearest down": [op(Upsample, 0, kind="nearest", size=(5, 7))],
    "nearest other": [op(Upsample, 0, kind="nearest", size=(13, 9))],
    **{f"{kind} of all": [op(Reduce, 0, kind=kind, axes=(0, 2))] for kind in ("max", "min")},
    **{
        f"{kind} of two": [op(Function, 0, kind="relu"), op(Combine, 0, 1, kind=kind)] for kind in ("max", "min", "sub")
    },
    "abs": [op(Function, 0, kind="abs")],
    "relu": [op(Function, 0, kind="relu")],
    "clamp": [op(Function, 0, kind="clamp", settings=(-0.5, 0.7))],
    "clamp crossed": [op(Function, 0, kind="clamp", settings=(0.7, 0.2))],
    "clamp below": [op(Function, 0, kind="clamp", settings=(-0.5, inf))],
    "clamp above": [op(Function, 0, kind="clamp", settings=(-inf, 0.7))],
    "clamp nothing": [op(Function, 0, kind="clamp", settings=(-inf, inf))],
    "affine": [op(Affine, 0, multiplier=reals(3), shift=reals(3))],
    "affine along columns": [op(Affine, 0, multiplier=reals(7), axis=2)],
    "shift": [op(Affine, 0, shift=reals(1))],
    "slopes": [op(Slopes, 0, slope=reals(3))],
    "one slope": [op(Slopes, 0, slope=reals(1))],
}

AVERAGES = {
    f"{kernel} {stride} {padding} ceil {ceil} counts {counts} divisor {divisor}": [
        op(AveragePool, 0, kernel=kernel, stride=stride, padding=padding, ceil=ceil, counts_padding=counts, divisor=divisor)
    ]
    for counts in (False, True)
    for kernel, stride, padding, ceil, divisor in (
        ((2, 2), (2, 2), (0, 0, 0, 0), True, None), ((3, 2), (2, 3), UNEVEN, True, None), ((5, 5), (2, 2), EVEN, False, 3),
        ((3, 3), (2, 2), EVEN, True, None), ((3, 3), (4, 5), EVEN, True, None), ((3, 3), (2, 2), EVEN, True, -2),
    )
}  # fmt: skip
CLOSE: dict[str, list[Operation]] = {
    **{f"mean {name}": case for name, case in AVERAGES.items()},
    **{f"mean adaptive {size}": [op(AdaptivePool, 0, kind="mean", size=size)] for size in ((4, 7), (5, 3), (16, 9))},
    **{f"bilinear {size}": [op(Upsample, 0, kind="bilinear", size=size)] for size in ((16, 21), (13, 9), (5, 4), (1, 7))},
    **{
        f"bilinear corners {size}": [op(Upsample, 0, kind="bilinear", size=size, align_corners=True)]
        for size in ((16, 21), (13, 9), (5, 4), (1, 7))
    },
    **{
        kind: [op(Function, 0, kind=kind)]
        for kind in ("erf", "exp", "expm1", "gelu", "gelu_tanh", "hardsigmoid", "hardswish", "mish", "sigmoid", "silu", "tanh")
    },
    "elu": [op(Function, 0, kind="elu", settings=(1.6732632423543772,))],
    "leaky_relu": [op(Function, 0, kind="leaky_relu", settings=(0.1,))],
    **{kind: [op(Function, 0, kind="abs"), op(Function, 1, kind=kind)] for kind in ("log", "log1p", "sqrt")},
    "power": [op(Function, 0, kind="abs"), op(Combine, 1, 0, kind="pow")],
    "power of numbers below 0": [op(Function, 0, kind="round"), op(Combine, 0, 1, kind="pow")],
    "power of rows": [op(Constant, numbers=np.array([[[2.5]], [[-1]], [[0]]], np.float32)), op(Function, 0, kind="abs"), op(Combine, 2, 1, kind="pow")],
    **{
        f"{kind} of means": [op(Reduce, 0, kind="mean", axes=(1, 2)), op(Combine, 0, 1, kind=kind)]
        for kind in ("add", "mul", "div")
    },
    "sum": [op(Reduce, 0, kind="sum", axes=(0, 1))],
    "constant times": [op(Constant, numbers=reals(1, 8, 1)), op(Combine, 1, 0, kind="mul")],
    "standardize": [op(Standardize, 0, axes=(0, 1, 2), eps=1e-5)],
    "standardize channels": [op(Standardize, 0, axes=(0,), eps=0.1)],
    "product": [op(Permute, 0, axes=(0, 2, 1)), op(Product, 0, 1)],
    "constant product": [op(Constant, numbers=reals(1, 8, 8)), op(Product, 1, 0)],
    "softmax": [op(Softmax, 0, axis=0)],
    "softmax of columns": [op(Softmax, 0, axis=2)],
    "log softmax": [op(Softmax, 0, axis=0, log=True)],
    "log softmax of columns": [op(Softmax, 0, axis=2, log=True)],
    "log softmax of few": [op(Reduce, 0, kind="mean", axes=(1, 2)), op(Reshape, 1, shape=(3,)), op(Softmax, 2, axis=0, log=True)],
    "transposed": [
        op(
            Transposed, 0, weight=reals(3, 4, 3, 3), shift=reals(12), stride=(2, 3), padding=(1, 0), more=(0, 2),
            dilation=(1, 2), groups=3,
        )
    ],
    "convolution": [op(Convolution, 0, matrix=Matrix(reals(6, 1, 3, 2), SCALE), stride=(2, 1), padding=UNEVEN, groups=3)],
    "convolution of codes on numbers": [op(Convolution, 0, matrix=Matrix(codes(WEIGHT), SCALE, None, reals(6)))],
    "convolution of positive codes on numbers": [op(Convolution, 0, matrix=Matrix(codes(WEIGHT), abs(SCALE)))],
    "convolution on codes": [
        op(Quantize, 0, grid=BYTES), op(Convolution, 1, matrix=WHOLE, padding=(2, 0, 1, 3), dilation=(2, 1))
    ],
    "convolution on three signs": [op(Quantize, 0, grid=Signs(0.5)), op(Convolution, 1, matrix=WHOLE)],
    "float convolution on codes": [op(Quantize, 0, grid=BYTES), op(Convolution, 1, matrix=Matrix(reals(6, 3, 3, 3)))],
    "numbers of codes": [op(Quantize, 0, grid=BYTES), op(Decode, 1)],
    "numbers of codes on another scale": [op(Quantize, 0, grid=Steps(40.0, 0.5, -128, 127)), op(Decode, 1)],
    "linear": [op(Reshape, 0, shape=(168,)), op(Linear, 1, matrix=Matrix(reals(5, 168)))],
    "linear over rows": [op(Linear, 0, matrix=Matrix(reals(5, 7), None, None, reals(5)))],
    "linear over rows of codes": [
        op(Quantize, 0, grid=BYTES), op(Linear, 1, matrix=Matrix(codes(drawn(-60, 60, 6, 7)), SCALE, WHOLE.bias))
    ],
    "linear on codes": [
        op(Reshape, 0, shape=(168,)), op(Quantize, 1, grid=BYTES), op(Linear, 2, matrix=Matrix(codes(drawn(-9, 9, 5, 168))))
    ],
}  # fmt: skip
