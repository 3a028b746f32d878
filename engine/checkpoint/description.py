"""What is said of a file that does not describe itself (format.Foreign): by flags, or by a file that was made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Description:
    """Which network a state_dict is of, and what it is wanted for.

    Args:
        arch: None: a network of this toolkit, which its shapes tell.
        cfg: its widths; None: its own, or those that the shapes of a network of this toolkit tell.
        core: of a detector of the user's the modules that are trained.
        classes: that the network is to have; None: as many as the file has.
        said_by: who wants these classes, for messages: `digits`, `--classes`.
        image_size: side of the pictures that it is to see.
        seed: of the last layer, which is made fresh where the file has other classes; None: such a file is refused.
        remedy: the hint of that refusal.
        bare: whether a file that describes itself is refused; else it is taken at its word.
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
