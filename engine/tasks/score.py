"""The name and unit of a task's score, for keys of files and headers of tables. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A measure of a network's quality; higher is better.

    Attributes:
        name: the name in keys, headers and sentences: "accuracy".
        unit: the unit after the number: "%".
        unit_word: the unit as a word, for the header of a CSV file: "percent".
    """

    name: str
    unit: str
    unit_word: str

    @property
    def column(self) -> str:
        """The name of a column in a file: "accuracy_percent"."""
        return f"{self.name}_{self.unit_word}"

    @property
    def label(self) -> str:
        """The label of an axis: "accuracy in %"."""
        return f"{self.name} in {self.unit}"

    def shown(self, value: float) -> str:
        """Return a value as messages show it: "97.33 %"."""
        return f"{value:.2f} {self.unit}"


ACCURACY = Score("accuracy", "%", "percent")
MAP = Score("mAP", "%", "percent")
"""COCO's mean average precision, over overlaps of 0.50 to 0.95."""
_OF = {"classification": ACCURACY, "detection": MAP}
TASKS = tuple(_OF)
"""The tasks that have a score, as DataInfo calls them."""
_ANY = Score("score", "%", "percent")


def of(task: str | None) -> Score:
    """Return the score of a task, by its name in DataInfo; None, which files of classifiers hold, is classification."""
    return _OF[task] if task else ACCURACY


def common(scores: Iterable[Score]) -> Score:
    """Return a column's score: the common one of `scores`, "score" for different ones, accuracy for none."""
    every = set(scores)
    return every.pop() if len(every) == 1 else _ANY if every else ACCURACY
