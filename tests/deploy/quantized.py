"""Merged networks under every quantizer, for tests of their programs."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bn_merge.merge import merge
from deploy.lowering.walk import lower
from deploy.operations.base import Codes, Matrix, Operation
from deploy.operations.layers import Convolution, Linear
from deploy.program import Program
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from quant.placement import meet
from quant.prepare import prepare
from quant.quantizer_spec import for_inputs, quantizer
from quant.spec import QuantSpec, affine_spec, uniform
from tests.tools import cases

SIDE = 16
MEAN, STD = (0.5,) * 3, (0.25,) * 3
Numbers = tuple[float, ...]
FLOAT = quantizer(32)


def _signs(weight: str, activation: str, order: str = "bacp") -> QuantSpec:
    return QuantSpec(quantizer(weight), for_inputs(activation), order=order)


SPECS = {
    "float": QuantSpec(),
    "w8a8": uniform("dorefa", 8, 8),
    "w4a4": uniform("dorefa", 4, 4),
    "w3a32": QuantSpec(quantizer(3), FLOAT),
    "lsq": uniform("lsq", 4, 4),
    "int8": affine_spec(8, 8, 1, False),
    "int8 symmetric": affine_spec(8, 8, 0, False),
    "int8 one grid": affine_spec(8, 8, 1, False, per_channel=False),
    "int8 symmetric one grid": affine_spec(8, 8, 0, False, per_channel=False),
    "int8 folded": affine_spec(8, 8, 1, True),
    "int7": affine_spec(7, 8, 0, False),
    "wbab bacp": _signs("b", "b"),
    "wbab cbap": _signs("b", "b", "cbap"),
    "wtab": _signs("t", "b"),
    "wtat": _signs("t", "t"),
    "wta8": QuantSpec(quantizer("t"), for_inputs(8)),
    "wta32": QuantSpec(quantizer("t"), FLOAT),
    "w32a4": QuantSpec(FLOAT, for_inputs(4)),
    "w32ab": QuantSpec(FLOAT, for_inputs("b")),
}
ENDS = {
    "wbab ends": replace(_signs("b", "b"), ends="int8"),
    "wtab cbap ends": replace(_signs("t", "b", "cbap"), ends="int8"),
    "wtat ends": replace(_signs("t", "t"), ends="int8"),
    "w4a4 ends": uniform("dorefa", 4, 4, ends="int8"),
    "int8 ends": replace(affine_spec(8, 8, 1, False), ends="int8"),
    "int4 symmetric ends folded": replace(affine_spec(4, 4, 0, True), ends="int8"),
    "int8 one grid ends": replace(affine_spec(8, 8, 1, False, per_channel=False), ends="int8"),
}
SUMS = {"int8 sums": uniform("affine", 8, 8, sums="int8")}
"""For networks with sums."""


@cache
def captured(name: str) -> NormalForm:
    """Return a captured network of tests.tools.cases."""
    torch.manual_seed(0)
    return capture(getattr(cases, name)().eval(), (3, SIDE, SIDE), f"tests.tools.cases:{name}", check=False)


def pictures(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def trained(form: NormalForm, spec: QuantSpec, mean: Numbers = MEAN, std: Numbers = STD) -> NormalForm:
    """Return a quantized copy in eval mode: gammas of both signs, statistics and steps from two training batches."""
    torch.manual_seed(0)
    model = copy.deepcopy(form)
    model = prepare(model, meet(spec, model, (), mean, std) if spec != QuantSpec() else spec)
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        norm.weight.uniform_(0.5, 1.5).mul_(torch.randn(len(norm.weight)).sign())
        norm.bias.normal_(0, 0.3)
        norm.momentum = 0.7
    for seed in (1, 2):
        model.train()(pictures(8, seed))
    return model.eval()


@cache
def merged(name: str, kind: str) -> NormalForm:
    return merge(trained(captured(name), {**SPECS, **SUMS, **ENDS}[kind]))


def lowered(form: NormalForm, low_ends: bool = True) -> Program:
    return lower(form, MEAN, STD, low_ends)


def as_numbers(number: int, shape: tuple[int, ...]) -> Operation:
    """Return a layer of ones that gives a value's codes as numbers, because a program's answer cannot be in codes."""
    width, flat = shape[0], len(shape) == 1
    ones = np.eye(width, dtype=np.int16) if flat else np.ones((width, 1, 1, 1), np.int16)
    matrix = Matrix(Codes(ones, 4, 1, np.array([-2], np.int32)))
    if flat:
        return Linear(matrix, sources=(number,), name="as numbers")
    return Convolution(matrix, groups=width, sources=(number,), name="as numbers")


def until(program: Program, number: int) -> Program:
    """Return a program whose answer is a value of this one, without the operations that it does not need."""
    needed = {number}
    for place in range(number, 0, -1):
        needed |= {*program.operations[place - 1].sources} if place in needed else set()
    order = sorted(needed - {0})
    new = {0: 0, **{old: place for place, old in enumerate(order, 1)}}
    operations = [program.operations[old - 1] for old in order]
    operations = [replace(operation, sources=tuple(new[s] for s in operation.sources)) for operation in operations]
    if program.values[number].grid is not None:
        operations.append(as_numbers(len(order), program.values[number].shape))
    return Program(tuple(operations), program.picture, program.mean, program.std)
