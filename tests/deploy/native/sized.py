"""Programs of one layer of any size, and the checks of the native engine on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, strategies as st

from deploy.native.executor import Native
from deploy.operations.base import Codes, Matrix, Operation
from deploy.operations.functions import Function
from deploy.operations.layers import Convolution, Quantize
from deploy.operations.pools import MaxPool
from deploy.program import Program
from deploy.reference.run import run
from models.layers.quantizers.base import Signs, Steps

GUARD = 0xA5
GRIDS = (
    Steps(40.0, 1 / 40, -128, 127), Steps(100.0, 0.01, 0, 255), Steps(4.0, 0.25, 0, 15), Steps(2.0, 0.5, -3, 4), Signs(),
    Signs(0.5),
)  # fmt: skip


@st.composite
def programs(draw: Any, side: int = 9) -> Program:
    """Draw a layer between codes and codes, with or without a ReLU and a pool.

    Args:
        side: how much larger than the windows pictures may be, in pixels.
    """

    def between(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    each = between(1, 200 // groups)
    channels, outputs = groups * each, groups * between(1, 200 // groups)
    if draw(st.integers(0, 4)) == 0:  # depthwise
        groups, each, outputs = channels, 1, channels
    kernel, dilation = (between(1, 4), between(1, 3)), (between(1, 2), between(1, 2))
    sides = tuple(dilation[i] * (kernel[i] - 1) + between(1, side) for i in range(2))
    padding = tuple(between(0, 2) for _ in range(4))
    most = draw(st.sampled_from([1, 7, 127, 255]))
    draws = np.random.default_rng(between(0, 2**16))
    weight = draws.integers(-most, most + 1, (outputs, each, *kernel)).astype(np.int16)
    if most == 255 and draw(st.booleans()):  # DoReFa's odd numbers; other numbers often exceed bytes
        weight = weight | 1
    if most == 127:  # a grid off 0, different for each filter
        weight = weight + draws.integers(0, 2, (outputs, 1, 1, 1)).astype(np.int16) * draw(st.sampled_from([0, 100]))
    grid = draw(st.sampled_from(GRIDS))
    plain = isinstance(grid, Signs) and draw(st.booleans())
    scale = None if plain else draws.uniform(-1, 1, outputs).astype(np.float32) / (most * 20 * (weight[0].size) ** 0.5)
    shift = None if plain or draw(st.booleans()) else draws.normal(size=outputs).astype(np.float32)
    bias = draws.integers(-99, 99, outputs).astype(np.int32)
    matrix = Matrix(Codes(weight, 512, 1, np.array([-256], np.int32)), scale, bias, shift)
    made: list[Operation] = [Quantize(grid, sources=(0,), name="codes")]

    def add(make: type[Operation], **told: Any) -> None:
        made.append(make(**told, sources=(len(made),), name=str(len(made))))

    add(
        Convolution,
        matrix=matrix,
        stride=(between(1, 3), between(1, 3)),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    activations: list[dict[str, Any]] = [
        {},
        {},
        {"kind": "relu"},
        {"kind": "clamp", "settings": (-0.7, 1.9)},
        {"kind": "clamp", "settings": (0.3, 0.2)},
    ]
    behind = draw(st.booleans())  # an activation after the pool
    if not behind and (told := draw(st.sampled_from(activations))):
        add(Function, **told)
    rows, columns = made[1].value(made[0].value(_value((channels, *sides)))).shape[1:]
    size, apart, around = between(2, 3), between(1, 2), between(0, 1)
    if min(rows, columns) + 2 * around > apart * (size - 1) and draw(st.booleans()):
        add(MaxPool, kernel=(size, size), stride=(between(1, 2), between(1, 2)), ceil=draw(st.booleans()),
            padding=(around,) * 4, dilation=(apart, apart))  # fmt: skip
    if behind and (told := draw(st.sampled_from(activations))):
        add(Function, **told)
    if not plain and draw(st.booleans()):
        add(Quantize, grid=draw(st.sampled_from(GRIDS)))
    elif plain:
        add(Quantize, grid=grid)
    if isinstance(made[-1], Quantize):  # decode codes to numbers
        ones = Codes(np.ones((outputs, 1, 1, 1), np.int16), 4, 1, np.array([-2], np.int32))
        add(Convolution, matrix=Matrix(ones), groups=outputs)
    return Program(tuple(made), (channels, *sides), (0.5,) * channels, (0.25,) * channels)


@st.composite
def depthwise(draw: Any) -> Program:
    """Draw a depthwise layer whose taps may come in fours: rows of few channels, several parts, weights beyond a byte.

    A layer reads codes, and gives codes to a second one or numbers.
    """

    def between(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    channels = 4 * draw(st.sampled_from([*range(1, 16), 17, 18, 20, 32, 33])) - draw(st.sampled_from([0, 0, 0, 1]))
    kernel, dilation = (between(1, 5), between(1, 4)), (between(1, 2), between(1, 2))
    sides = tuple(dilation[i] * (kernel[i] - 1) + between(*((1, 3), (3, 16))[i]) for i in range(2))
    draws = np.random.default_rng(between(0, 2**16))
    most = draw(st.sampled_from([1, 127, 254, 381]))  # one, one, two and three planes of bytes
    weight = draws.integers(-most, most + 1, (channels, 1, *kernel)).astype(np.int16)
    scale = draws.uniform(-1, 1, channels).astype(np.float32) / (most * 20)
    shift = draw(st.sampled_from([None, draws.normal(size=channels).astype(np.float32)]))
    bias = draw(st.sampled_from([None, draws.integers(-99, 99, channels).astype(np.int32)]))
    matrix = Matrix(_wide_codes(weight), scale, bias, shift)
    grid = draw(st.sampled_from(GRIDS[:3]))
    made: list[Operation] = [Quantize(grid, sources=(0,), name="codes")]

    def add(make: type[Operation], **told: Any) -> None:
        made.append(make(**told, sources=(len(made),), name=str(len(made))))

    add(Convolution, matrix=matrix, stride=(between(1, 2), draw(st.sampled_from([1, 1, 2]))), dilation=dilation,
        padding=tuple(between(0, 2) for _ in range(4)), groups=channels)  # fmt: skip
    if draw(st.booleans()):
        add(Function, kind="relu")
    if draw(st.sampled_from([True, True, False])):
        add(Quantize, grid=draw(st.sampled_from(GRIDS)))
        ones = draws.integers(-1, 2, (8, channels, 1, 1)).astype(np.int16)
        add(Convolution, matrix=Matrix(_wide_codes(ones)))
    return Program(tuple(made), (channels, *sides), (0.5,) * channels, (0.25,) * channels)


@dataclass(frozen=True)
class Size:
    """A layer of `chain`: its outputs, its square windows, its largest weight, and whether no weight is 0."""

    outputs: int
    kernel: int
    most: int = 1
    whole: bool = True
    stride: int = 1
    dilation: int = 1
    more: int = 0
    """Padding below and right beyond that above and left."""


@st.composite
def chained(draw: Any) -> Program:
    """Draw a layer on bytes or signs and two layers on its signs, which the engine holds in words of bits."""

    def size(number: int) -> Size:
        outputs, kernel = draw(st.integers(1, 200)), draw(st.sampled_from([1, 3]))
        most = draw(st.sampled_from([1, 100])) if number == 0 else 1
        stride, dilation, more = (draw(st.sampled_from([low, low, low + 1])) for low in (1, 1, 0))
        return Size(outputs, kernel, most, draw(st.booleans()), stride, dilation, more)

    channels, draws = draw(st.integers(1, 70)), np.random.default_rng(draw(st.integers(0, 2**16)))
    sides = draw(st.integers(3, 9)), draw(st.integers(3, 14))
    signs = Signs(draw(st.sampled_from([None, None, 0.5])))
    grids, plain = [draw(st.sampled_from(GRIDS)), signs, signs], draw(st.booleans())
    return chain(draws, (channels, *sides), grids, [size(number) for number in range(3)], plain)


def chain(
    draws: np.random.Generator, picture: tuple[int, int, int], grids: list[Any], sizes: list[Size], plain: bool
) -> Program:
    """Return layers on codes, one behind the other.

    Args:
        grids: of each layer's input.
        plain: whether sums are the results, without scale and shift.
    """
    made: list[Operation] = []
    inputs = picture[0]
    for grid, size in zip(grids, sizes, strict=True):
        outputs, most = size.outputs, size.most
        weight = draws.integers(-most, most + 1, (outputs, inputs, size.kernel, size.kernel)).astype(np.int16)
        weight = np.where(weight == 0, 1, weight) if size.whole else weight
        scale = None if plain else draws.uniform(-1, 1, outputs).astype(np.float32) / (most * weight[0].size ** 0.5)
        shift = None if plain else draws.normal(size=outputs).astype(np.float32)
        matrix = Matrix(_wide_codes(weight), scale, draws.integers(-9, 9, outputs).astype(np.int32), shift)
        near = size.kernel // 2 * size.dilation
        made.append(Quantize(grid, sources=(len(made),), name=str(len(made))))
        made.append(
            Convolution(
                matrix=matrix,
                padding=(near, near + size.more) * 2,
                stride=(size.stride,) * 2,
                dilation=(size.dilation,) * 2,
                sources=(len(made),),
                name=str(len(made)),
            )
        )
        inputs = outputs
    return Program(tuple(made), picture, (0.5,) * picture[0], (0.25,) * picture[0])


def _wide_codes(values: Any) -> Codes:
    return Codes(values, 1024, 1, np.array([-512], np.int32))


def _value(shape: tuple[int, ...]) -> Any:
    from deploy.operations.base import Value

    return Value(shape)


def check(made: Program, kernels: str) -> None:
    x = torch.randn(2, *made.picture, generator=torch.Generator().manual_seed(0)) * 2
    native = Native(made, kernels)
    size = native.plan.arena
    native(x)
    native.arenas[:] = GUARD  # memory that no step writes is not 0
    assert not native.plan.constants
    begin = native._begin - native.arenas.ctypes.data
    with _one_thread():
        found = native(x)
    assert torch.equal(found, run(made, x))
    assert (native.arenas[:begin] == GUARD).all()
    assert (native.arenas[begin + size :] == GUARD).all()
    assert torch.equal(native._run(x[:1], 3), found[:1])  # the rows of one picture in parallel


class _one_thread:
    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


FAST: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
