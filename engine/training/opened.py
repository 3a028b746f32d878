"""The interface of an opened file with its network; models/files.py opens files, as engine builds no networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from torch import nn

from engine.checkpoint.format import Checkpoint

if TYPE_CHECKING:
    from typing_extensions import Self

Net_co = TypeVar("Net_co", bound=nn.Module, covariant=True)


class Opened(Protocol[Net_co]):
    """An opened file and its network, from models.files."""

    @property
    def path(self) -> Path: ...

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def network(self) -> Net_co: ...

    def at(self, side: int) -> Self:
        """Return the same file with a network for pictures of this side."""
