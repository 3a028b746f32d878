"""The compiled loops compute the formulas of kernels.py for any types, widths and numbers of rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.fused import kernels, loops
from models.fused.selecting import returned, selected
from models.fused.windows import Windows

TYPES = (torch.float32, torch.bfloat16)
SIZES = ((1, 1), (3, 5), (64, 16), (129, 33), (1000, 96), (70, 3), (96, 10), (66, 24), (20, 1100))
KINDS = (
    ("number", "ste"),
    ("round", "ste"),
    ("share", "ste"),
    ("sign", "ste"),
    ("sign", "saturate"),
    ("sign", "soft"),
    ("ternary", "soft"),
)


def given(
    rows: int, channels: int, of: torch.dtype, kind: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return z, k, a, c of kernels.py, its grid and a gradient, without numbers on an edge, which depend on the last bit."""
    draw = torch.Generator().manual_seed(rows * 1000 + channels)
    z = (3 * torch.randn(rows, channels, generator=draw)).to(of)
    k, a, c = torch.randn(3, channels, generator=draw)
    low, high = {"round": (-7.0, 8.0), "share": (0.0, 15.0)}.get(kind, (0.0, 0.0))
    least, most = (-7.5, 8.5) if kind == "round" else (-math.inf, math.inf)
    first, last = (-6.3, 7.9) if kind == "round" else (math.inf, -math.inf)
    grid = torch.tensor([-1.75, math.inf, 0.23, low, high, least, most, first, last])
    return z, k, a, c, grid, torch.randn(rows, channels, generator=draw)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("of", TYPES, ids=str)
def test_moments(size: tuple[int, int], of: torch.dtype) -> None:
    z, k, *_ = given(*size, of, "number")
    for ends in (False, True):
        found, wanted = loops.moments(z, k, ends), kernels.moments(z.double(), k.double(), ends)
        assert len(found) == len(wanted) == 2 + 2 * ends
        parts = zip(found, (torch.sum, torch.sum, torch.amin, torch.amax)[: len(found)], wanted, strict=True)
        for one, joined, other in parts:
            torch.testing.assert_close(joined(one, 0), other.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("of", TYPES, ids=str)
@pytest.mark.parametrize("to", TYPES, ids=str)
def test_codes_and_gradients(kind: tuple, size: tuple[int, int], of: torch.dtype, to: torch.dtype) -> None:
    kind, slope = kind
    z, k, a, c, grid, g = given(*size, of, kind)
    assert torch.equal(loops.coded(z, k, a, c, grid, kind, to), kernels.coded(z, k, a, c, grid, kind, to))
    g, steps = g.to(to), (a / grid[2], c / grid[2])
    for one, other in zip(
        loops.sums(g, z, k, *steps, grid, kind, slope),
        kernels.sums(g.double(), z.double(), k.double(), *(end.double() for end in steps), grid.double(), kind, slope),
        strict=True,
    ):
        torch.testing.assert_close(one.sum(0), other.float(), rtol=1e-4, atol=1e-3)
    e0, e1 = torch.randn(2, size[1])
    found = loops.back(g, z, k, *steps, grid, e0, e1, kind, slope)
    assert found.dtype == of
    torch.testing.assert_close(found, kernels.back(g, z, k, *steps, grid, e0, e1, kind, slope))
    torch.testing.assert_close(loops.spread(z, k, e0, e1), kernels.spread(z, k, e0, e1))


POOLS = {
    "2x2": nn.MaxPool2d(2),
    "3x3 in steps of 2": nn.MaxPool2d(3, 2, 1),
    "3x3 in steps of 1": nn.MaxPool2d(3, 1),
    "4x2, borders": nn.MaxPool2d((4, 2), (1, 2), (2, 0)),
    "gaps between windows": nn.MaxPool2d(2, 3),
    "7x7": nn.MaxPool2d(7, 2, 3),
}


@pytest.mark.parametrize("size", [(1, 7, 9, 16), (3, 8, 8, 5), (2, 11, 7, 33), (2, 12, 12, 96)], ids=str)
@pytest.mark.parametrize("of", TYPES, ids=str)
@pytest.mark.parametrize("name", POOLS)
def test_numbers_that_windows_select_and_their_gradients(
    name: str, of: torch.dtype, size: tuple[int, int, int, int]
) -> None:
    """Half of the channels hold integers, many of them equal: the first is selected."""
    pictures, *before, channels = size
    z, k, a, *_ = given(pictures * math.prod(before), channels, of, "number")
    z[:, ::2], a[channels // 2] = z[:, ::2].round(), 0
    windows = Windows.of(POOLS[name], tuple(before))
    (chosen, which), wanted = loops.selected(z, a, windows), selected(z, a, windows)
    assert torch.equal(chosen, wanted[0])
    assert torch.equal(which, wanted[1])
    e0, e1 = torch.randn(2, channels)
    d = torch.randn_like(chosen)
    found = loops.returned(d, which, z, k, e0, e1, windows)
    assert found.dtype == of
    torch.testing.assert_close(found, returned(d, which, z, k, e0, e1, windows), rtol=2**-7, atol=1e-5)


def test_a_window_with_a_nan_selects_it() -> None:
    z = torch.randn(2 * 6 * 6, 20)
    z[7, 3] = math.nan  # of the first picture, in the second row
    chosen, _ = loops.selected(z, torch.ones(20), Windows.of(nn.MaxPool2d(2), (6, 6)))
    assert chosen[0, 3].isnan()
    assert chosen.isnan().sum() == 1


@pytest.mark.parametrize("to", TYPES, ids=str)
def test_what_is_no_number_stays_none(to: torch.dtype) -> None:
    """A NaN ends training, so it must not become a code."""
    z, k, a, c, grid, _ = given(20, 19, torch.float32, "round")
    z[3, 4], z[5, 18] = math.nan, math.inf
    found = loops.coded(z, k, a.abs(), c, grid, "round", to)
    assert found[3, 4].isnan()
    assert found[5, 18] == 8
    assert found.isnan().sum() == 1
    grid[2] = math.nan
    assert loops.coded(z, k, a, c, grid, "round", to).isnan().all()


def test_halves_go_to_even_and_bf16_is_rounded_as_torch_does() -> None:
    z = torch.arange(-9, 9).float()[:, None] / 2
    one, zero = torch.ones(1), torch.zeros(1)
    grid = torch.tensor([-math.inf, math.inf, 1.0, -9.0, 9.0, -9.0, 9.0, -9.0, 9.0])
    assert torch.equal(loops.coded(z, zero, one, zero, grid, "round", torch.float32), z.round())
    z = torch.randn(1000, 1) * 1e3
    assert torch.equal(loops.coded(z, zero, one, zero, grid, "number", torch.bfloat16), z.bfloat16())


def test_equal_threads_give_equal_bits() -> None:
    z, k, a, c, grid, g = given(5000, 40, torch.bfloat16, "round")
    first = loops.sums(g.bfloat16(), z, k, a, c, grid, "round", "ste")
    for _ in range(5):
        again = loops.sums(g.bfloat16(), z, k, a, c, grid, "round", "ste")
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_other_types_are_refused() -> None:
    z, k, *_ = given(4, 5, torch.float32, "number")
    with pytest.raises(TypeError, match="float64"):
        loops.moments(z.double(), k, False)
    across, of_channels = torch.randn(8, 64).T, torch.ones(8)
    for loop in (
        lambda: loops.moments(across, of_channels, False),
        lambda: loops.spread(across, of_channels, of_channels, of_channels),
    ):
        with pytest.raises(TypeError, match="contiguous"):
            loop()


def test_a_matrix_without_rows_has_no_sums() -> None:
    first, second = loops.moments(torch.empty(0, 24), torch.ones(24), False)
    assert not first.any()
    assert not second.any()
