"""Check what the reader of a data set returns, so that a new reader's mistake is named before training meets it.

Also check the names that a folder gives to its classes and to itself, as they stand in files and tables.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.data.info import DataInfo, Read
from engine.errors import BAD_DATA, UserError


def checked(name: str, found: Read) -> Read:
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


def class_names(names: Sequence[str], where: Path) -> tuple[str, ...]:
    """Return the names of a folder's classes, if they are different, and lines of text.

    Raises:
        UserError: naming the first wrong one (exit 4).
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if not name.strip():
            raise UserError(f"{where}: class {number} has no name", "give each class a name", BAD_DATA)
        if not is_line(name):
            what = "it holds a line break, a control character or bytes that are not UTF-8"
            raise UserError(f"{where}: the class name {name!r} is no line of text: {what}", "rename it", BAD_DATA)
        if first.setdefault(name, number) != number:
            text = f"{where}: classes {first[name]} and {number} have the same name, {name}"
            raise UserError(text, "give each class a name of its own", BAD_DATA)
    return tuple(names)


def is_line(name: str) -> bool:
    """Return whether a name has no line breaks, control characters and undecodable bytes, which ONNX files refuse."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)


def _said(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _wrong(name: str, what: str) -> UserError:
    return UserError(
        f"the reader of --dataset {name}: {what}",
        "mend the reader, which READERS of engine/data/catalogue.py names",
        BAD_DATA,
    )
