"""`torch`: run programs on stock PyTorch. Integer layers run as int8 convolutions where these are exact, else in fp32."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deploy.executors import numbers, plans
from deploy.executors.base import arithmetic
from deploy.narrow import Narrow, narrow
from deploy.operations.base import Value, fits_a_byte, padding_of_windows
from deploy.operations.layers import Convolution, Decode, Linear, Quantize
from deploy.operations.places import Pad
from deploy.operations.pools import MaxPool
from deploy.program import Program
from deploy.reference.run import RULES, codes_of, numbers_of
from models.layers import qconv
from models.layers.qconv import QConv
from models.layers.quantizers.base import Signs, Steps

LAST = torch.channels_last
SHAPES = 4
"""Shapes of inputs for which a layer's weight is kept laid out, each as large as the weight."""


@dataclass(frozen=True)
class _Step:
    """A step that computes the value `gives`; the values that it `covers` are not computed."""

    sources: tuple[int, ...]
    gives: int
    run: Callable[..., Tensor]
    covers: tuple[int, ...] = ()


class Stock:
    """A program on the CPU.

    With int8 convolutions a code may differ from the reference's by one, where a sum lies on the edge between two codes;
    in fp32 codes are equal.

    Args:
        integers: False: no int8 convolutions; None: use them where they are exact.
    """

    name = "torch"

    def __init__(self, program: Program, integers: bool | None = None) -> None:
        self.program = program
        why = "int8 convolutions are switched off" if integers is False else qconv.trusted()
        self.integers = not why and all(v.grid is None or fits_a_byte(v.grid) for v in program.values)
        why = why or "some codes do not fit a byte, or 0 is not among them"
        whole = arithmetic(program) != "fp32"
        self.how = "int8 convolutions of oneDNN" if self.integers else f"fp32 arithmetic on codes: {why}"
        self.how = self.how if whole else "fp32"
        self.readers = plans.readers(program)
        self.steps: list[_Step] = []
        made: set[int] = set()
        for number, operation in enumerate(program.operations):
            if number + 1 in made:
                continue
            given = [program.values[source] for source in operation.sources]
            step = self._step(number, given)
            made |= {*step.covers}
            self.steps.append(step)
        self.last = {source: place for place, step in enumerate(self.steps) for source in step.sources}

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        x = self.program.pictures(x)
        if not len(x):
            return x.new_zeros(0, *self.program.answer)
        held = {0: x.contiguous(memory_format=LAST)}
        for place, step in enumerate(self.steps):
            found = step.run(*(held[source] for source in step.sources))
            held[step.gives] = found if step.sources else found.expand(len(x), *found.shape[1:])
            for source in {*step.sources}:
                if self.last[source] == place and source in held:
                    del held[source]
        return held[len(self.program.operations)]

    def _step(self, number: int, given: list[Value]) -> _Step:
        operation, value = self.program.operations[number], self.program.values[number + 1]
        sources = operation.sources
        if isinstance(operation, Quantize):
            return _Step(sources, number + 1, self._quantize(operation.grid))
        if isinstance(operation, Decode):
            return _Step(sources, number + 1, self._decode(given[0].grid))
        if isinstance(operation, Pad) and given[0].grid is not None and self.integers:
            zero = _zero(given[0].grid)
            above, below, left, right = operation.sides
            if operation.kind == "constant":
                return _Step(
                    sources,
                    number + 1,
                    lambda x: F.pad(x, (left, right, above, below, *operation.channels), value=zero),
                )
        if isinstance(operation, (Convolution, Linear)) and operation.matrix.whole(given[0]):
            return self._layer(number, operation, given[0])
        run = numbers.step(operation, given, value)
        if self.integers and given and given[0].grid is not None:
            run = _of_bytes(run, _zero(given[0].grid), gives_codes=value.grid is not None)
        return _Step(sources, number + 1, run)

    def _quantize(self, grid: Steps | Signs) -> Callable[[Tensor], Tensor]:
        if not self.integers:
            return lambda x: codes_of(x, grid)
        if isinstance(grid, Signs):
            return lambda x: _signs(x, grid)
        zero = _zero(grid)
        return lambda x: codes_of(x, grid).add_(zero).to(torch.uint8)

    def _decode(self, grid: Steps | Signs | None) -> Callable[[Tensor], Tensor]:
        zero = _zero(grid) if self.integers else 0
        return lambda codes: numbers_of(codes.float() - zero if zero else codes, grid)

    def _layer(self, number: int, operation: Convolution | Linear, given: Value) -> _Step:
        """Return the step of an integer layer."""
        groups = operation.groups if isinstance(operation, Convolution) else 1
        small = narrow(operation.matrix, groups, given) if self.integers else None
        if small is None or (isinstance(operation, Linear) and len(given.shape) != 1):
            return _Step(operation.sources, number + 1, self._exact(number, operation, given))
        chain = plans.chain(self.program, number, self.readers)
        fused = chain if isinstance(operation, Convolution) else None
        run = _integer(small, operation, _zero(given.grid), fused, self.program.values)
        covers = fused.covered if fused else (number + 1,)
        return _Step(operation.sources, covers[-1], run, covers)

    def _exact(self, number: int, operation: Convolution | Linear, given: Value) -> Callable[[Tensor], Tensor]:
        """Return a function that computes a layer as the reference does."""
        rule, value = RULES[type(operation)], self.program.values[number + 1]
        zero, shifted = _zero(given.grid), self.integers

        def run(x: Tensor) -> Tensor:
            x = x.float() - zero if shifted else x
            return rule(operation, [given], value, len(x), x)

        return run


def _of_bytes(run: Callable[[Tensor], Tensor], zero: int, gives_codes: bool) -> Callable[[Tensor], Tensor]:
    """Adapt an operation on integer codes, such as padding or a layer with float weights, to codes held as bytes."""
    if gives_codes:
        return lambda x: (run(x.float() - zero) + zero).to(torch.uint8)
    return lambda x: run(x.float() - zero)


def _signs(x: Tensor, grid: Signs) -> Tensor:
    """Return codes_of(x, grid) + 1 in bytes, also for NaN. Comparisons give bytes at once, ten times as fast."""
    if grid.edge is None:
        return x.ge(0).view(torch.uint8).mul_(2)
    return x.gt(grid.edge).view(torch.uint8).add_(x.lt(-grid.edge).logical_not_().view(torch.uint8))


def _zero(grid: Steps | Signs | None) -> int:
    """Return the byte of the code 0."""
    return -grid.low if isinstance(grid, Steps) else 1


def _integer(
    small: Narrow, operation: Convolution | Linear, zero: int, fused: plans.Chain | None, values: Sequence[Value]
) -> Callable[[Tensor], Tensor]:
    """Return a layer as an int8 convolution; with `fused` it gives codes.

    Args:
        zero: the byte of the code 0 in the input.
        fused: the operations from the layer to the codes.
        values: of the program.
    """
    geometry, padding = ((1, 1), (0, 0), (1, 1), 1), (0, 0, 0, 0)
    weight, even = torch.from_numpy(small.weight), True
    if isinstance(operation, Convolution):
        above, below, left, right = padding = operation.padding
        even = (above, left) == (below, right)
        geometry = (operation.stride, (above, left) if even else (0, 0), operation.dilation, operation.groups)
    else:
        weight = weight[:, :, None, None]
    scale = torch.from_numpy(small.scale)
    bias = torch.from_numpy(small.bias).float() * scale
    bias = bias if small.shift is None else bias + torch.from_numpy(small.shift)
    inverse, out_zero = (fused.grid.inverse, -fused.grid.low) if fused else (None, 0)

    @lru_cache(maxsize=SHAPES)
    def layer(shape: tuple[int, ...]) -> QConv:
        return QConv(
            weight, scale, bias, zero, *geometry, inverse=inverse, out_zero=out_zero,
            relu=bool(fused and fused.low == 0), shape=shape,
        )  # fmt: skip

    runs = [] if small.channels is None else _runs(small.channels)
    least, most = (fused.low + out_zero, fused.high + out_zero) if fused else (0, 255)
    nearer = most < 255 or least not in (0, out_zero)  # the convolution itself computes a ReLU
    pools = [(pool, values[place]) for pool, place in fused.pools] if fused else []

    def run(x: Tensor) -> Tensor:
        flat = x.ndim == 2
        x = x[:, :, None, None] if flat else x
        x = torch.cat([x[:, first:behind] for first, behind in runs], 1) if runs else x
        if not even:
            above, below, left, right = padding
            x = F.pad(x, (left, right, above, below), value=zero)
        x = x.contiguous(memory_format=LAST)
        found = layer(tuple(x.shape))(x)
        found = found.clamp_(least, most) if nearer else found
        for pool, value in pools:
            found = _pooled(found, pool, value)
        return found[:, :, 0, 0] if flat else found

    return run


def _runs(channels: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the first channel of each run of neighbours, and the channel behind its last."""
    edges = [0, *(np.flatnonzero(np.diff(channels) != 1) + 1).tolist(), len(channels)]
    return [(int(channels[a]), int(channels[b - 1]) + 1) for a, b in itertools.pairwise(edges)]


def _pooled(x: Tensor, pool: MaxPool, value: Value) -> Tensor:
    """Max-pool codes held as bytes, with 0 the lowest. PyTorch's own max-pool of bytes allows 127 places at most."""
    above, below, left, right = padding_of_windows(
        x.shape[2:], value.shape[1:], pool.kernel, pool.stride, pool.padding, pool.dilation
    )
    x = F.pad(x, (left, right, above, below)) if any((above, below, left, right)) else x
    rows, columns = value.shape[1:]
    (down, over), (high, wide) = pool.stride, pool.kernel
    found = None
    for row, column in itertools.product(range(high), range(wide)):
        top, first = row * pool.dilation[0], column * pool.dilation[1]
        part = x[:, :, top : top + (rows - 1) * down + 1 : down, first : first + (columns - 1) * over + 1 : over]
        found = part if found is None else torch.maximum(found, part)
    assert found is not None
    return found
