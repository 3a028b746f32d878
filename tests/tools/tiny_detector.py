"""The smallest detector: a trunk, a top, and code that makes boxes and losses of their numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """A user's detector: one box for each cell."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.top = nn.Conv2d(8, classes + 5, 1)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        maps = self.top(self.trunk(torch.stack(images)))
        if targets is not None:
            wanted = torch.tensor([float(len(target["labels"])) for target in targets])
            return {
                "count": (maps.sigmoid()[:, 0].sum((1, 2)) - wanted).square().mean(),
                "size": maps[:, 1:5].square().mean(),
            }
        flat = maps.flatten(2).transpose(1, 2)
        return [
            {"boxes": one[:, 1:5], "scores": one[:, 0].sigmoid(), "labels": one[:, 5:].argmax(1) + 1} for one in flat
        ]
