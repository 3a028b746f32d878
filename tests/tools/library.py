"""torchvision networks reduced to few blocks, under their own names: commands treat them like the full networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import nn
from torchvision import models
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock, ResNet

_mobile = partial(InvertedResidualConfig, dilation=1, width_mult=1)


def _mobilenet(classes: int) -> nn.Module:
    """Return a MobileNet with three blocks: one with squeeze-excite, one that widens, one that adds its input."""
    blocks = [
        _mobile(16, 3, 16, 16, True, "RE", stride=2),
        _mobile(16, 3, 72, 24, False, "RE", stride=2),
        _mobile(24, 5, 96, 24, True, "HS", stride=1),
    ]
    return MobileNetV3(blocks, 128, classes)


def _resnet(classes: int) -> nn.Module:
    """Return a ResNet with one block for each of ResNet-18's first two widths."""
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    network.layer3, network.layer4 = nn.Identity(), nn.Identity()
    network.fc = nn.Linear(128, classes)
    return network


FEW: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": _resnet,
    "mobilenet_v3_small": _mobilenet,
}


def with_few_blocks(patch: pytest.MonkeyPatch) -> None:
    """Make torchvision build the networks of FEW with few blocks."""
    whole = models.get_model

    def get(name: str, num_classes: int = 1000, **more: Any) -> nn.Module:
        return FEW[name](num_classes) if name in FEW else whole(name, num_classes=num_classes, **more)

    patch.setattr(models, "get_model", get)
