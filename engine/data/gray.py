"""Measure mean and std of grey pictures, for networks that read one channel; augment.py converts the pixels."""

from __future__ import annotations

from dataclasses import replace

import torch

from engine.data.info import Channels
from engine.data.splits import Data

MEASURED = 10_000
"""The most training pictures to measure mean and std on; they are always the same."""


def statistics(data: Data, digits: int = 4) -> tuple[Channels, Channels]:
    """Measure mean and standard deviation of the training pictures in grey, as fractions of 255.

    The mean follows from the colours' means, but the standard deviation depends on the correlation of the colours.

    Raises:
        UserError: for damaged pictures in a folder (exit 4).
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
