"""Gray pictures for networks that read one channel: mean and std, measured. How pixels are made gray: augment.py."""

from __future__ import annotations

from dataclasses import replace

import torch

from engine.data.info import Channels
from engine.data.splits import Data

MEASURED = 10_000
"""Training pictures that mean and std are measured on, at most; always the same."""


def statistics(data: Data, digits: int = 4) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the training pictures in gray, as fractions of 255.

    The mean would follow from those of red, green and blue; the standard deviation depends on how they go together.

    Raises:
        UserError: exit 4 for damaged pictures of a folder.
    """
    train, own = data.train, data.train.info
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:MEASURED]
    count, total, squares = 0, 0.0, 0.0
    try:
        train.info = replace(own, mean=(0.0,), std=(1.0,))
        for pictures, _ in train.batches(500, order):
            pixels = pictures.double()
            count += pixels.numel()
            total += float(pixels.sum())
            squares += float((pixels**2).sum())
    finally:
        train.info = own
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5
    return (round(mean, digits),), (max(round(std, digits), 10**-digits),)
