"""The names of data sets for --dataset; catalogue.py reads them."""

from __future__ import annotations

BUILT_IN = ("cifar10", "cifar100", "mnist", "fashion_mnist", "digits", "scenes")
"""Data sets whose pictures never change."""
FOLDERS = ("imagefolder", "coco", "yolo")
"""Kinds of folders with the user's pictures."""
ALL = (*BUILT_IN, *FOLDERS)
BOXES = ("scenes", "coco", "yolo")
"""Data sets of objects with boxes, for detectors."""
SHIFT, IMAGENET = CROPS = ("shift", "imagenet")
"""The values of --crop: how pictures are cut, see crops.py."""
IN_WORDS = f"{', '.join(ALL[:-1])} or {ALL[-1]}"
