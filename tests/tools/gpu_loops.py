"""Compare GPU kernels with their formulas; on a CPU, in Triton's interpreter: TRITON_INTERPRET=1 python -m tests.tools.gpu_loops cpu"""

from __future__ import annotations

import math
import sys

import torch
from torch import nn

from models.fused import channels, channels_on_gpu, kernels, on_gpu, pool
from tests.models.fused.test_loops import KINDS, SIZES, TYPES, given

MEASURED = {"cpu": (*SIZES, (700, 40)), "cuda": ((129, 33), (200_000, 96))}
"""Sizes to compare. The interpreter is slow with many numbers, a compiler with many kernels."""
POOLS = (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d((2, 3), (1, 2), (1, 1)))


def compare(device: str) -> int:
    """Compare all kernels and return the number of comparisons.

    Raises:
        AssertionError: if a kernel differs from its formula.
    """
    done = 0
    for size in MEASURED[device]:
        for of in TYPES:
            for kind, slope in KINDS:
                for to in TYPES if device == "cpu" else (of,):
                    _compare_one(size, of, kind, slope, to, device)
                    done += 1
    _compare_ends(device)
    for parts in ("nothing", "a scale", "a norm", "all"):
        _compare_formulas(parts, device)
        done += 1
    for module in POOLS:
        _compare_pool(module, device)
        done += 1
    return done


def _compare_formulas(has: str, device: str) -> None:
    """Compare the results by channel, and the updated running statistics."""
    torch.manual_seed(0)
    for width, parts in ((5, 1), (33, 3), (192, 264)):
        first, second = torch.randn(2, parts, width, device=device)
        second = second.square() + parts
        k, mean, var, bias, gamma, beta = torch.rand(6, width, device=device) + 0.5
        s = None if has in ("nothing", "a norm") else torch.rand(1 if has == "a scale" else width, device=device)
        step, eps = torch.tensor(0.3, device=device), 1e-3
        found = []
        for kind in (channels.normed.__wrapped__, channels_on_gpu.normed):  # type: ignore[attr-defined]
            share, affine, tracks = 0.1 if has == "a norm" else None, has in ("a norm", "all"), has != "nothing"
            norm = nn.BatchNorm2d(width, eps, share, affine, tracks, device=device)
            for value, of in (
                (mean, norm.running_mean),
                (var, norm.running_var),
                (gamma, norm.weight),
                (beta, norm.bias),
            ):
                if of is not None:
                    of.data.copy_(value)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(4)
            told = (first, second, k, 40 * parts, s, bias if has == "all" else None, norm)
            with torch.no_grad():
                found.append([*kind(*told), *norm.buffers()])
        of_weight = gamma if has in ("a norm", "all") else None
        told = (first, second, step, var, s, of_weight, eps, 40)
        for kind in (channels.pulled.__wrapped__, channels_on_gpu.pulled):  # type: ignore[attr-defined]
            found.append([*kind(*told)])
        for one, other in (found[:2], found[2:]):
            for value, wanted in zip(one, other, strict=True):
                torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)


def _compare_pool(module: nn.MaxPool2d, device: str) -> None:
    """Compare values, the choice between equal numbers, and gradients."""
    x = torch.randint(-3, 4, (2, 70, 9, 8), device=device).float().contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0] = -math.inf
    x.requires_grad_()
    found, wanted = pool.pooled(module, x), module(x)
    assert torch.equal(found, wanted)
    g = torch.randn_like(wanted)
    for one, other in zip(torch.autograd.grad(found, x, g), torch.autograd.grad(wanted, x, g), strict=True):
        torch.testing.assert_close(one, other)


def _compare_one(
    size: tuple[int, int], of: torch.dtype, kind: kernels.Kind, slope: str, to: torch.dtype, device: str
) -> None:
    z, k, a, c, grid, g = (value.to(device) for value in given(*size, of, kind))
    for ends in (False, True):
        found, wanted = on_gpu.moments(z, k, ends), kernels.moments(z.double(), k.double(), ends)
        together = [part.sum(0) for part in found[:2]] + ([found[2].amin(0), found[3].amax(0)] if ends else [])
        for one, other in zip(together, wanted, strict=True):
            torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-3)
    codes, wanted_codes = on_gpu.coded(z, k, a, c, grid, kind, to), kernels.coded(z, k, a, c, grid, kind, to)
    assert codes.dtype == to
    if kind == "number":  # the interpreter truncates where a GPU rounds
        torch.testing.assert_close(codes, wanted_codes, rtol=1e-2 if to == torch.bfloat16 else 1e-5, atol=1e-5)
    else:  # a code may lie on an edge: a GPU uses fused multiply-add
        assert (codes != wanted_codes).sum() <= codes.numel() // 10_000
    g, steps = g.to(to), (a / grid[2], c / grid[2])
    e0, e1 = torch.randn(2, size[1], device=device)
    for one, other in zip(
        on_gpu.sums(g, z, k, *steps, grid, kind, slope),
        kernels.sums(g.double(), z.double(), k.double(), *(v.double() for v in steps), grid.double(), kind, slope),
        strict=True,
    ):
        # many numbers are equal in bf16, and may lie on an edge
        torch.testing.assert_close(one.sum(0), other.float(), rtol=1e-2 if size[0] > 10_000 else 1e-3, atol=1e-2)
    rounding = {"rtol": 2e-2, "atol": 1e-2} if of == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    found = on_gpu.back(g, z, k, *steps, grid, e0, e1, kind, slope)
    assert found.dtype == of
    torch.testing.assert_close(found, kernels.back(g, z, k, *steps, grid, e0, e1, kind, slope), **rounding)
    torch.testing.assert_close(on_gpu.spread(z, k, e0, e1), kernels.spread(z, k, e0, e1), **rounding)


def _compare_ends(device: str) -> None:
    """Check that NaN stays NaN, halves round to even, and infinity is clamped."""
    z = torch.tensor([[0.5], [1.5], [2.5], [-0.5], [-1.5], [math.nan], [math.inf], [300.0]], device=device)
    one, zero = torch.ones(1, device=device), torch.zeros(1, device=device)
    grid = torch.tensor([-math.inf, math.inf, 1.0, -9.0, 9.0, -9.0, 9.0, -9.0, 9.0], device=device)
    found = on_gpu.coded(z, zero, one, zero, grid, "round", torch.float32).flatten().tolist()
    assert found[:5] == [0, 2, 2, 0, -2]
    assert math.isnan(found[5])
    assert found[6:] == [9, 9]
    z, grid[3:5] = z.new_full((1, 1), 5.0), torch.tensor([0.0, 255.0], device=device)
    assert on_gpu.coded(z, zero, one, zero, grid, "share", torch.float32).item() == 128  # 0.1 x 255 is 127.5


if __name__ == "__main__":
    print(compare(sys.argv[1]))
