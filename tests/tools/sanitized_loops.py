"""python -m tests.tools.sanitized_loops [COUNT]: run the training loops on rows of any size in a sanitized library.

As in tests.tools.sanitized, without COUNT it is only compiled; with COUNT AddressSanitizer must be loaded from the start.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from itertools import product

import torch

from models.fused import library, loops
from models.fused.windows import Windows
from tests.tools.sanitized import CHECKED

KINDS = (("number", "ste"), ("round", "ste"), ("sign", "soft"), ("ternary", "soft"))


def main(count: int) -> None:
    library.SOURCES = replace(library.SOURCES, flags=(*library.SOURCES.flags, *CHECKED))
    if not count:
        library.SOURCES.build()
        return
    draw = random.Random(0)
    grid = torch.tensor([0.0, 1e30, 0.2, -7, 8, -7, 8, -7, 8])
    for number in range(count):
        rows, channels = draw.randint(1, 200), draw.randint(1, 70)
        k, a, c, e0, e1 = torch.randn(5, channels)
        kind, slope = KINDS[number % len(KINDS)]
        for of, to in product((torch.float32, torch.bfloat16), repeat=2):
            z, g = torch.randn(rows, channels).to(of), torch.randn(rows, channels).to(to)
            loops.moments(z, k, True)
            loops.coded(z, k, a, c, grid, kind, to)
            loops.sums(g, z, k, a, c, grid, kind, slope)
            loops.back(g, z, k, a, c, grid, e0, e1, kind, slope)
            loops.spread(z, k, e0, e1)
        _pool(draw, channels)
    print(count)


def _pool(draw: random.Random, channels: int) -> None:
    size, step = ((draw.randint(1, 5), draw.randint(1, 5)) for _ in range(2))
    around = (draw.randint(0, size[0] // 2), draw.randint(0, size[1] // 2))
    before = (size[0] + draw.randint(0, 8), size[1] + draw.randint(0, 8))
    windows, pictures = Windows(size, step, around, before), draw.randint(1, 3)
    k, a, e0, e1 = torch.randn(4, channels)
    for of in (torch.float32, torch.bfloat16):
        z = torch.randn(pictures * before[0] * before[1], channels).to(of)
        chosen, which = loops.selected(z, a, windows)
        loops.returned(chosen, which, z, k, e0, e1, windows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
