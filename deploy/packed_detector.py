"""What a packed file says of a detector: the tensors of its core, and the settings of the code that makes boxes of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from deploy.operations.base import Shape, short
from engine.cli.naming import called
from engine.errors import UserError

DEEPEST = 8
"""Lists in lists of a setting."""


@dataclass(frozen=True)
class PackedDetector:
    """The tensors of a core and the settings of the code around it.

    Args:
        outputs: the name and shape of each tensor, without the number of pictures, as they lie in the flat answer.
        settings: as models.detectors.settings finds them.
    """

    outputs: tuple[tuple[str, Shape], ...]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        outputs = [{"name": name, "shape": list(shape)} for name, shape in self.outputs]
        return {"outputs": outputs, "settings": self.settings}

    def lines(self) -> list[str]:
        """Return its tensors and settings as text."""
        told = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in self.outputs)
        settings = ", ".join(f"{key} {_written(value)}" for key, value in self.settings.items())
        return [f"answer: {told}", f"boxes: {settings or 'by settings that only the code of the detector knows'}"]

    def check(self, outputs: Sequence[tuple[str, Shape]], settings: dict[str, Any], arch: str) -> None:
        """Compare the code that is to make boxes.

        Raises:
            UserError: exit 2 if its tensors or one of its settings differ from those of the file.
        """
        again = f"restore the code that the file was packed with, or pack again: {called('deploy.pack')}"
        for was, now in zip_longest(self.outputs, outputs, fillvalue=("nothing", ())):
            if was != now:
                raise UserError(
                    f"the core of {arch} gives {_named(*now)}, and the packed file holds {_named(*was)}",
                    again,
                )
        for key in {**self.settings, **settings}:
            packed, found = (_written(held[key]) if key in held else "missing" for held in (self.settings, settings))
            if packed != found:
                raise UserError(
                    f"{key} is {found} in the code of {arch}, and {packed} in the packed file",
                    again,
                )


def read_detector(said: Any, answer: Shape) -> PackedDetector:
    """Return the part of a description that `PackedDetector.to_dict` wrote.

    Args:
        answer: the shape of the program's answer.

    Raises:
        ValueError: for anything else, and for tensors that do not fill the answer.
    """
    if not isinstance(said, dict) or sorted(said) != ["outputs", "settings"]:
        raise ValueError(f"a detector is written as {short(said)}, not by outputs and settings")
    if not isinstance(said["outputs"], list) or not all(map(_is_output, said["outputs"])):
        raise ValueError(f"its outputs are written as {short(said['outputs'])}, not by names and shapes")
    if not isinstance(said["settings"], dict) or not all(_is_setting(value) for value in said["settings"].values()):
        raise ValueError(f"its settings are written as {short(said['settings'])}")
    outputs = tuple((each["name"], tuple(each["shape"])) for each in said["outputs"])
    if (total := sum(math.prod(shape) for _, shape in outputs),) != answer:
        raise ValueError(f"its outputs have {total} numbers, the answer has the shape {short(answer)}")
    return PackedDetector(outputs, said["settings"])


def _is_output(said: Any) -> bool:
    named = isinstance(said, dict) and sorted(said) == ["name", "shape"] and isinstance(said["name"], str)
    return named and isinstance(said["shape"], list) and all(type(n) is int and 0 < n < 2**31 for n in said["shape"])


def _is_setting(value: Any, deep: int = 0) -> bool:
    if isinstance(value, list):
        return deep < DEEPEST and all(_is_setting(part, deep + 1) for part in value)
    return type(value) in (bool, int, float, str)


def _named(name: str, shape: Shape) -> str:
    return " ".join([name, "x".join(map(str, shape))]).rstrip()


def _written(value: Any) -> str:
    """Return a setting as text: equal settings have equal texts, however their numbers are held."""
    return json.dumps(value, separators=(",", ":"))
