"""A small detector from outside of the toolkit, as the text of cells.py. The modules of its core are trunk and top."""

from __future__ import annotations

NETWORK = '''
import torch
from torch import nn
from torchvision.ops import nms


class Cells(nn.Module):
    """One box a cell of 8 x 8 pixels: how sure, where, and which class."""

    def __init__(self, classes=10):
        super().__init__()
        widths = (3, 16, 24, 32)
        self.trunk = nn.Sequential(*(part for a, b in zip(widths, widths[1:]) for part in
                                     (nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())))
        self.top = nn.Conv2d(32, 5 + classes, 1)

    def forward(self, images, targets=None):
        maps = self.top(self.trunk(torch.stack(list(images)))).flatten(2).transpose(1, 2)
        side = int(maps.shape[1] ** 0.5)
        step = images[0].shape[-1] / side
        middle = (torch.arange(side * side, device=maps.device)[:, None] // torch.tensor([1, side], device=maps.device) % side + 0.5) * step
        if targets is not None:
            sure = torch.zeros(maps.shape[:2], device=maps.device)
            near = maps.new_zeros(())
            for one, found, wanted in zip(maps, sure, targets):
                for box, label in zip(wanted["boxes"], wanted["labels"]):
                    cell = ((box[:2] + box[2:]) / 2 / step).long().clamp(0, side - 1)
                    cell = cell[1] * side + cell[0]
                    found[cell] = 1
                    near = near + (one[cell, 1:5] - (box - middle[cell].repeat(2)) / 16).abs().sum()
                    near = near + nn.functional.cross_entropy(one[cell, 5:][None], label[None] - 1)
            return {"sure": nn.functional.binary_cross_entropy_with_logits(maps[..., 0], sure), "near": near / len(maps)}
        answers = []
        for one in maps:
            boxes, scores = middle.repeat(1, 2) + one[:, 1:5] * 16, one[:, 0].sigmoid()
            kept = nms(boxes, scores, 0.5)
            answers.append({"boxes": boxes[kept], "scores": scores[kept], "labels": one[kept, 5:].argmax(1) + 1})
        return answers


def net(classes=10):
    return Cells(classes)
'''
OWN = ("--arch", "cells.py:net")
