"""The axis of the pictures through random moves: the batch-first form holds each picture's numbers in their order."""

from __future__ import annotations

import random
from math import prod

import pytest
import torch
from torch import Tensor

from deploy.lowering.batch.axis import BatchAxis

B = 5  # shared by no other size, so that it is told from them


def of_each_picture(value: Tensor) -> list[Tensor]:
    """Return the numbers of each picture in the order of the value. A number's thousands name its picture."""
    flat = value.flatten()
    return [flat[flat // 1000 == picture] for picture in range(B)]


def assert_holds(first: Tensor, value: Tensor, axis: BatchAxis) -> None:
    assert value.shape == (*axis.before, axis.outer * B * axis.inner, *axis.after)
    assert first.shape == (B, *axis.apart)
    for one, other in zip(first, of_each_picture(value), strict=True):
        assert torch.equal(one.flatten(), other)


def split(rng: random.Random, number: int, parts: int) -> list[int]:
    """Return factors of a number, 1 among them."""
    factors = [1] * parts
    for prime in (2, 2, 2, 3):
        if number % prime == 0:
            factors[rng.randrange(parts)] *= prime
            number //= prime
    factors[-1] *= number
    return factors


@pytest.mark.parametrize("seed", range(60))
def test_random_moves(seed: int) -> None:
    rng = random.Random(seed)
    value = torch.arange(B)[:, None] * 1000 + torch.arange(24)
    first, axis = value, BatchAxis.first((24,))
    for _ in range(6):
        if rng.random() < 0.5:
            axes = rng.sample(range(value.ndim), value.ndim)
            axis, order = axis.permuted([a - value.ndim if rng.random() < 0.3 else a for a in axes])
            value, first = value.permute(axes), first.permute(order)
        else:
            in_front, behind = prod(axis.before) * axis.outer, prod(axis.after) * axis.inner
            *before, outer = split(rng, in_front, rng.randint(1, 3))
            inner, *after = split(rng, behind, rng.randint(1, 3))
            axis = axis.reshaped((*before, None, *after))
            assert (axis.outer, axis.inner) == (outer, inner)
            value = value.reshape(*before, outer * B * inner, *after)
            first = first.reshape(B, *axis.apart)
        assert_holds(first, value, axis)
        assert axis.is_first == (value.shape[0] == B)
        for dim in {*range(value.ndim)} - {axis.place}:
            assert first.shape[axis.axis(dim)] == value.shape[dim]
            assert axis.axis(dim - value.ndim) == axis.axis(dim)
            assert_holds(first.select(axis.axis(dim), 0), value.select(dim, 0), axis.without(dim))


@pytest.mark.parametrize("shape", [(None, 24), (6, None, 4, 2), (3, None), (None, None, 2), (24, 5)])
def test_a_shape_that_cuts_the_pictures_apart(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ValueError, match=r"cuts the pictures apart|one axis for the pictures"):
        BatchAxis((4,), 1, 2, (4,)).reshaped(shape)


def test_the_axis_of_the_pictures_is_none_of_the_others() -> None:
    with pytest.raises(ValueError, match="it works across pictures"):
        BatchAxis((4,), 1, 2, (4,)).axis(-2)


def test_values_lie_beside_each_other_in_equal_axes_alone() -> None:
    axis = BatchAxis((4,), 1, 2, (4,))
    assert axis.is_beside(axis.resized((1, None, 7)))
    for other in ((4,), 2, 1, (4,)), ((), 1, 2, (4, 4)), ((4,), 1, 2, (4, 1)), ((4,), 1, 1, (4,)):
        assert not axis.is_beside(BatchAxis(*other))


def test_sizes_that_are_not_those_of_the_pictures() -> None:
    assert BatchAxis((4,), 1, 3, (2,)).fits((4, 6, 2))
    assert BatchAxis((4,), 1, 3, (2,)).fits(None)
    assert not BatchAxis((4,), 1, 3, (2,)).fits((4, 12, 2))  # the pictures counted twice
