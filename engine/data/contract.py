"""Check what the reader of a data set returns, so that a new reader's mistake is named before training meets it."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.data.info import DataInfo, Parts
from engine.errors import BAD_DATA, UserError


def checked(name: str, found: Parts) -> Parts:
    """Return what a reader returns, if it is pictures and labels of the described classes.

    Args:
        found: the training part and the test part, each uint8 pictures (N, H, W, 3) and integer labels (N,), and their
            description.

    Raises:
        UserError: exit 4 if it is something else.
    """
    if not isinstance(found, tuple) or len(found) != 3 or not isinstance(found[2], DataInfo):
        raise _wrong(name, "it does not return (pictures, labels), (pictures, labels), DataInfo")
    for part, given in zip(("training", "test"), found[:2], strict=True):
        if not isinstance(given, tuple) or len(given) != 2 or not all(isinstance(each, Tensor) for each in given):
            raise _wrong(name, f"its {part} part is not two tensors")
        images, labels = given
        side, classes = found[2].image_size, found[2].classes
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3) or not len(images):
            raise _wrong(name, f"its {part} pictures are {_said(images)}, not uint8 (N, {side}, {side}, 3)")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise _wrong(name, f"its {part} labels are {_said(labels)}, not int64 ({len(images)},)")
        if labels.min() < 0 or labels.max() >= classes:
            outside = labels[(labels < 0) | (labels >= classes)][0]
            raise _wrong(name, f"its {part} labels have {outside}, not only 0 to {classes - 1}")
    return found


def _said(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _wrong(name: str, what: str) -> UserError:
    return UserError(
        f"the reader of --dataset {name}: {what}",
        "mend the reader, which READERS of engine/data/catalogue.py names",
        BAD_DATA,
    )
