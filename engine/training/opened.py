"""A file and the network in it, as what is here needs them. engine itself makes none: models/files.py does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from torch import nn

from engine.checkpoint.format import Checkpoint

if TYPE_CHECKING:
    from typing_extensions import Self

Net_co = TypeVar("Net_co", bound=nn.Module, covariant=True)


class Opened(Protocol[Net_co]):
    """A file and the network in it; models.files gives it."""

    @property
    def path(self) -> Path: ...

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def network(self) -> Net_co: ...

    def at(self, side: int) -> Self:
        """The same with a network for pictures of this side."""
