"""What follows a layer in evaluation, in one pass over memory instead of one for each operation: the same bits as torch's,
for numbers that are channels last in memory.

    (z scale + bias) a + c -> activation -> code          a = gamma / sqrt(var + eps), c = beta - mean a

A score may not depend on whether a compiler is there. So `trusted` compares the loops with torch's own operations first:
torch's code for some processors rounds a product before it adds, and its code for others does not.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.system.compiled import Unavailable
from models.fused import loops
from models.fused.gradients import rows
from models.fused.grid import Act, grid_of
from models.fused.windows import Windows
from models.layers.conv_q import scaled
from models.layers.quantizers.base import Rule

NUMBERS = Rule("number")


def settled(
    z: Tensor, scale: Tensor | None, bias: Tensor | None, norm: nn.BatchNorm2d | None, act: Act, rule: Rule,
    dtype: torch.dtype, pool: nn.MaxPool2d | None = None,
) -> Tensor:  # fmt: skip
    """Return codes of act(norm(z scale + bias)) for a norm in evaluation, in `dtype`. Shapes: (B, C, H, W) -> (B, C, H', W').

    Args:
        z: fp32, on a CPU.
        scale, bias: of the layer before, () or one for each channel.
        pool: a max-pool before or behind the activation: both give the same.
    """
    channels, shape, flat = z.shape[1], tuple(z.shape[2:]), rows(z)
    scale, bias = (
        None if of is None else of.detach().reshape(-1).expand(channels).contiguous() for of in (scale, bias)
    )
    a, c = (None, None) if norm is None else _factors(norm)
    if pool is not None:
        windows = Windows.of(pool, shape)
        flat, shape = loops.selected(flat, _direction(flat, scale, a), windows)[0], windows.after
    out = loops.settled(flat, scale, bias, a, c, grid_of(rule, act, z.device), rule.kind, dtype)
    return out.reshape(len(z), *shape, channels).permute(0, 3, 1, 2)


def _factors(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a and c with torch's bits: its results for a 1 in a norm without mean and beta, and for a 0."""
    assert norm.running_mean is not None
    zero = torch.zeros_like(norm.running_mean)

    def of(x: Tensor, mean: Tensor, beta: Tensor | None) -> Tensor:
        found = F.batch_norm(x[None, :, None, None], mean, norm.running_var, norm.weight, beta, False, 0.0, norm.eps)
        return found.flatten()

    return of(zero + 1, zero, None), of(zero, norm.running_mean, norm.bias)


def _direction(flat: Tensor, scale: Tensor | None, a: Tensor | None) -> Tensor:
    """Return for each channel a number below 0 where a larger z gives a smaller result, else above it or 0."""
    one = flat.new_ones(flat.shape[1], dtype=torch.float32)
    for factor in (scale, a):
        one = one if factor is None else one * factor.sign()
    return one


@cache
def trusted() -> str:
    """Return why the loops are not used in evaluation; empty if their results are torch's, bit for bit, and they are used."""
    try:
        same = all(
            _agrees(*given)
            for given in product((1, 10, 16, 192), ("none", "one", "each"), (False, True), (False, True))
        )
    except Unavailable as fault:
        return str(fault)
    return "" if same else "torch's operations round in another order here"


@torch.no_grad()
def _agrees(channels: int, scales: str, biased: bool, affine: bool) -> bool:
    """Compare on made-up sums of codes, some of them large.

    Args:
        scales: "none", "one" for all channels, or one for "each".
        biased: whether the layer has a bias.
        affine: whether the norm has gamma and beta.
    """
    draw, kind, where = torch.Generator().manual_seed(channels), torch.float32, torch.device("cpu")
    z = torch.randint(-(2**16), 2**16, (3, channels, 9, 7), generator=draw, dtype=kind, device=where)
    z = z.contiguous(memory_format=torch.channels_last)
    shape = {"one": (), "each": (channels, 1, 1)}.get(scales)
    scale = None if shape is None else 1e-4 * (1 + torch.rand(shape, generator=draw, dtype=kind, device=where))
    bias = torch.randn(channels, generator=draw, dtype=kind, device=where) if biased else None
    norm = nn.BatchNorm2d(channels, affine=affine, dtype=kind, device=where).eval()
    for value in (norm.running_mean, norm.weight, norm.bias):
        if value is not None:
            value.normal_(generator=draw)
    assert norm.running_var is not None
    norm.running_var.uniform_(0.1, 2.0, generator=draw)
    wanted = norm(scaled(z.clone(memory_format=torch.channels_last), scale, bias)).relu()
    return torch.equal(settled(z, scale, bias, norm, "relu", NUMBERS, torch.float32), wanted)
