"""Names that users' networks imported from here when networks had to declare their channels.

They are kept so that such networks can still be imported, but the declarations are ignored. The network's graph shows
which channels belong together (models/graph/channels/classes.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Consumer:
    """A layer that reads a group of channels."""

    layer: str
    shuffle: int = 1
    after: str | None = None


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that a batch norm scales."""

    gate: str
    producer: str
    consumers: tuple[Consumer, ...]
    unit: int = 1


class Network(nn.Module):
    """The base of networks that declare their channels."""
