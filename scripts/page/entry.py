"""One network as the page shows it: its row of the table, its layers, its learning curve, where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scripts.table import ResultRow, score_of

Curve = tuple[dict[str, float], ...]
"""What was measured after each epoch of the last stage, by the names of metrics.csv."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer.

    Args:
        kept, before: output channels now, and before any pruning; None where it is not known.
        weight_bits, input_bits: None where they are not known.
    """

    name: str
    kept: int | None
    before: int | None
    weight_bits: int | None = None
    input_bits: int | None = None
    macs: int | None = None


@dataclass(frozen=True)
class Entry:
    """One network.

    Args:
        name: short, and no other entry's.
        method: see scripts.methods.
        network: what it was built by; layers of one network have the same names.
        no_curve: why there is no learning curve, where there is none.
        provenance: the commands that made it, with a comment above each.
    """

    name: str
    row: ResultRow
    method: str
    network: str
    layers: tuple[Layer, ...]
    curve: Curve
    no_curve: str
    provenance: str

    @property
    def size(self) -> int:
        """Stored bits in whole bytes."""
        return (self.row.size_bits + 7) // 8


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Give entries whose names are the same the paths of their files as names."""
    count = Counter(entry.name for entry in entries)
    named = [replace(entry, name=entry.row.file) if count[entry.name] > 1 else entry for entry in entries]
    again = Counter(entry.name for entry in named)  # one file given twice
    return [
        replace(entry, name=f"{entry.name} ({number})") if again[entry.name] > 1 else entry
        for number, entry in enumerate(named, 1)
    ]


def score_label(entries: Sequence[Entry]) -> str:
    """Return what an axis of accuracies says: `accuracy in %`."""
    return score_of([entry.row for entry in entries]).label
