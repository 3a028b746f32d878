"""The textbook step to compare with: training as the original and its peers do it, written from their description.

It reads PIL pictures through a DataLoader with two workers, in NCHW and fp32. It multiplies codes by their scale before
each convolution, has one Adam group a tensor, loops in Python over the filters of ternary and binary weights, and calls
`.item()` on loss and hits in every step. Its workers load ahead while other steps are timed, which favours it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from models.layers import products
from models.layers.bnfold import BNFoldConv2d
from models.layers.conv_q import QuantConv2d, QuantLinear
from models.layers.quantizers.base import Quantized
from models.layers.quantizers.binary import BinaryWeight
from models.layers.quantizers.ternary import TernaryWeight
from scripts.speed.variants import FLOAT, network

PICTURES = 2000
BATCH = 500
"""Pictures of one evaluation batch."""


class Pictures(Dataset):
    """Random PIL pictures, with the usual augmentation or without."""

    def __init__(self, side: int, count: int = PICTURES, augmented: bool = True) -> None:
        from torchvision import transforms

        self.pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8).numpy()
        moved = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()] if augmented else []
        self.ready = transforms.Compose([*moved, transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.ready(Image.fromarray(self.pixels[index])), index % 10


def step_of(arch: str, side: int, variant: str, batch: int, device: torch.device) -> Callable[[], None]:
    """Return a function that runs one training step of a fresh network."""
    model = plain(network(arch, side, variant), variant).to(device)
    optimizer = torch.optim.Adam([{"params": [p]} for p in model.parameters() if p.requires_grad], 1e-3)
    loader = _forever(DataLoader(Pictures(side), batch, shuffle=True, num_workers=2, persistent_workers=True))

    def step() -> None:
        images, target = (part.to(device) for part in next(loader))
        optimizer.zero_grad()
        output = model(images)
        loss = F.cross_entropy(output, target)
        loss.backward()
        optimizer.step()
        loss.item()
        (output.argmax(1) == target).sum().item()

    return step


def evaluation_of(arch: str, side: int, variant: str, count: int, device: torch.device) -> Callable[[], None]:
    """Return a function that evaluates a network once on `count` pictures."""
    model = plain(network(arch, side, variant), variant).to(device)
    loader = DataLoader(Pictures(side, count, augmented=False), BATCH, num_workers=2, persistent_workers=True)
    with torch.no_grad():
        model(torch.randn(50, 3, side, side, device=device))  # ranges and steps need a batch
    model.eval()

    @torch.no_grad()
    def run() -> None:
        for images, target in loader:
            (model(images.to(device)).argmax(1) == target.to(device)).sum().item()

    return run


def _forever(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def plain(model: nn.Module, variant: str) -> nn.Module:
    """Return `model` with "fake" quantization: its quantized layers multiply real numbers instead of codes."""
    if variant != FLOAT:
        for layer in model.modules():
            if isinstance(layer, (QuantConv2d, QuantLinear)):
                layer.forward = _fake(layer)  # type: ignore[method-assign,assignment]
    return model


def _fake(layer: Any) -> Callable[[Tensor], Tensor]:
    def numbers(x: Tensor | Quantized, quantize: Callable[[Any], Quantized]) -> Tensor:
        codes, scale = x if isinstance(x, Quantized) else quantize(x)
        return codes if scale is None else codes * scale

    def filters(weight: Tensor) -> Tensor:
        if not isinstance(layer.weight_quantizer, (TernaryWeight, BinaryWeight)):
            return numbers(weight, layer.weight_quantizer)
        return torch.cat([numbers(weight[n : n + 1], layer.weight_quantizer) for n in range(len(weight))])

    def forward(x: Tensor | Quantized) -> Tensor:
        x = numbers(x, layer.input_quantizer)
        if isinstance(layer, QuantLinear):
            return F.linear(x, filters(layer.weight), layer.bias)
        weight, bias = layer.weight, layer.bias
        if isinstance(layer, BNFoldConv2d):
            weight, bias = layer.folded(*layer.statistics(x, None))
        output = products.convolve(layer, x, filters(weight), None)
        return output if bias is None else output + bias[:, None, None]

    return forward
