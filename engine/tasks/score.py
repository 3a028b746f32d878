"""What the score of a task is called, for the keys of files and the headers of tables. It needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A number that says how good a network is; more is better.

    Attributes:
        name: in keys, headers and sentences: "accuracy".
        unit: behind the number: "%".
        unit_word: the unit where a sign cannot stand, as in the header of a CSV file: "percent".
    """

    name: str
    unit: str
    unit_word: str

    @property
    def column(self) -> str:
        """For machines: "accuracy_percent"."""
        return f"{self.name}_{self.unit_word}"

    @property
    def label(self) -> str:
        """For the axis of a picture: "accuracy in %"."""
        return f"{self.name} in {self.unit}"


ACCURACY = Score("accuracy", "%", "percent")
MAP = Score("mAP", "%", "percent")
"""COCO's mean average precision, over overlaps of 0.50 to 0.95."""
_OF = {"classification": ACCURACY, "detection": MAP}
_ANY = Score("score", "%", "percent")


def of(task: str) -> Score:
    """The score of a task, by what DataInfo calls it."""
    return _OF[task]


def common(scores: Iterable[Score]) -> Score:
    """What a column of these is called."""
    every = set(scores)
    return every.pop() if len(every) == 1 else _ANY if every else ACCURACY
