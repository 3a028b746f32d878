"""The data sets that --dataset names. What each one is: catalogue.py."""

from __future__ import annotations

BUILT_IN = ("cifar10", "cifar100", "mnist", "fashion_mnist", "digits", "scenes")
"""Whose pictures are always the same."""
ALL = (*BUILT_IN, "imagefolder", "coco", "yolo")
BOXES = ("scenes", "coco", "yolo")
"""Whose pictures show objects with boxes, for detectors."""
SHIFT, IMAGENET = CROPS = ("shift", "imagenet")
"""What --crop names: how pictures are cut. What each is: crops.py."""
IN_WORDS = f"{', '.join(ALL[:-1])} or {ALL[-1]}"
