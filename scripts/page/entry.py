"""One network as the page shows it: its row of the table, its layers, its learning curve, where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count as numbers

from scripts.table import ResultRow, score_of

Curve = tuple[dict[str, float], ...]
"""What was measured after each epoch of the last stage, by the names of metrics.csv."""

Judged = tuple[str, str, str]
"""What a score was measured on, and which it is: data set, part, and the score's name."""


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
        no_before: why the channels before pruning are not known, where the network cannot be built without pruning.
    """

    name: str
    row: ResultRow
    method: str
    network: str
    layers: tuple[Layer, ...]
    curve: Curve
    no_curve: str
    provenance: str
    no_before: str = ""

    @property
    def size(self) -> int:
        """Stored bits in whole bytes."""
        return (self.row.size_bits + 7) // 8


MARKERS = ("circle", "square", "diamond", "triangle", "inverted_triangle", "hex")
"""Bokeh's shapes of points."""


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Give entries of one name the paths of their files as names, and a number where the paths are the same, too."""
    count = Counter(entry.name for entry in entries)
    named = [replace(entry, name=entry.row.file) if count[entry.name] > 1 else entry for entry in entries]
    again = Counter(entry.name for entry in named)  # one file given twice
    found, taken = [], {name for name, times in again.items() if times == 1}
    for place, entry in enumerate(named, 1):
        if again[entry.name] > 1:
            names = (f"{entry.name} ({number})" for number in numbers(place))
            entry = replace(entry, name=next(name for name in names if name not in taken))
            taken.add(entry.name)
        found.append(entry)
    return found


def score_label(entries: Sequence[Entry]) -> str:
    """Return what an axis of accuracies says: `accuracy in %`."""
    return score_of([entry.row for entry in entries]).label
