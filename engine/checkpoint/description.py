"""Descriptions of files that do not describe themselves (format.Foreign), from flags or from a file made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Description:
    """The network of a state_dict, and what it is needed for.

    Args:
        arch: the network; None: one of this toolkit, recognised by its tensors' shapes.
        cfg: its widths; None: its default widths, or, for a network of this toolkit, those of its tensors' shapes.
        core: the modules to train, for your own detector.
        classes: number of classes of the network; None: the file's number.
        said_by: where `classes` comes from, for messages: `digits`, `--classes`.
        image_size: side of the input pictures, in pixels.
        seed: for a fresh last layer, used if the file has another number of classes; None: such a file is refused.
        remedy: the hint of that refusal.
        bare: whether to refuse a file that describes itself; if False, its own description is used.
    """

    arch: str | None = None
    cfg: Sequence[int] | None = None
    core: str | None = None
    classes: int | None = None
    said_by: str = ""
    image_size: int = 32
    seed: int | None = None
    remedy: str = ""
    bare: bool = True
