"""Pictures of noise, and the equality of batches."""

from __future__ import annotations

import torch


def noise(count: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def equal_batches(one, other) -> bool:
    pairs = list(zip(one, other, strict=True))
    return bool(pairs) and all(torch.equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))
