"""The boxes that a packed detector finds, as lines of text. Drawn into pictures: drawing.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.checkpoint.format import Checkpoint
from engine.cli.naming import refuse_input
from engine.data.augment import normalise
from engine.data.detection.sources import stretched
from engine.data.pictures import decode
from engine.system.files import check_writable
from engine.system.messages import notice
from engine.tasks.detection import sound
from models import registry
from models.files import check_arch

if TYPE_CHECKING:
    from deploy.executors.base import Executor
    from deploy.packed_detector import PackedDetector
    from models.detectors.shell import Shell

Corners = tuple[float, float, float, float]
"""Left, upper, right and lower edges, in pixels."""
OTHER_FOLDER = "name another folder for --draw"


@dataclass(frozen=True)
class Box:
    """A box that was found.

    Args:
        name: of its class.
        score: in [0, 1].
        box: its left, upper, right and lower edges, in pixels of the picture.
    """

    name: str
    score: float
    box: Corners


@dataclass(frozen=True)
class Found:
    """The boxes of a picture, the highest score first."""

    picture: Path
    boxes: tuple[Box, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        boxes = [{"name": each.name, "score": each.score, "box": list(each.box)} for each in self.boxes]
        return {"picture": str(self.picture), "boxes": boxes}


def shell_of(made: Checkpoint, side: int, arch: str | None, detector: PackedDetector | None = None) -> Shell:
    """Build the code that turns a packed detector's outputs into boxes.

    Args:
        side: of the pictures, in pixels.
        arch: the value of --arch. Your own detectors need it: opening a file never imports your code by itself.
        detector: what the file says of this code; None for a file of format 2.

    Raises:
        UserError: exit 2 if --arch is missing or differs from the file's, or the code has other settings.
    """
    check_arch(made.arch, arch, f"a detector of {made.arch}, whose code turns its outputs into boxes")
    core: Any = registry.build(made.arch, **made.arch_args)
    core.fit_to((3, side, side))
    if detector is None:
        notice("the packed file does not say with which settings boxes are made: those of the code are taken")
    else:
        detector.check(core.shell.outputs, core.shell.settings, made.arch)
    return core.shell


def found(
    executor: Executor, shell: Shell, made: Checkpoint, pictures: list[Path], least: float, together: int
) -> list[Found]:
    """Find the boxes of pictures. A notice counts those that are left out, as they cannot be boxes.

    Args:
        least: the lowest score to keep.
        together: batch size.

    Raises:
        UserError: exit 4, naming a picture that cannot be read.
    """
    info = made.dataset
    names = info.names or tuple(f"class {number}" for number in range(info.classes))
    given, wrong = list[Found](), 0
    for start in range(0, len(pictures), together):
        paths = pictures[start : start + together]
        opened = [decode(path) for path in paths]
        shown = torch.stack([stretched(picture, shell.side, shell.side) for picture in opened])
        for path, picture, boxes in zip(paths, opened, shell.boxes(executor(normalise(shown, info))), strict=True):
            good = sound(boxes)
            wrong += int((~good).sum())
            boxes = {key: value[good] for key, value in boxes.items()}
            given.append(Found(path, tuple(_listed(boxes, picture.size, shell.side, names, least))))
    if wrong:
        notice(f"boxes left out: {wrong:,}, whose numbers or scores are not finite, or which end before they begin")
    return given


def _listed(
    boxes: dict[str, Tensor], size: tuple[int, int], side: int, names: tuple[str, ...], least: float
) -> Iterable[Box]:
    wide, high = size
    scale = torch.tensor([wide, high, wide, high]) / side
    rows = zip(boxes["boxes"] * scale, boxes["labels"].tolist(), boxes["scores"].tolist(), strict=True)
    for box, label, score in rows:
        if score >= least:
            left, top, right, bottom = (round(value, 1) for value in box.tolist())
            yield Box(names[label], score, (left, top, right, bottom))


def lines(given: list[Found], least: float) -> list[str]:
    """Return a line for each box: `photo.jpg: dog 0.93 at 12,40 120,200`."""
    told = []
    for one in given:
        told += [
            f"{one.picture}: {box.name} {box.score:.2f} at {x1:.0f},{y1:.0f} {x2:.0f},{y2:.0f}"
            for box in one.boxes for x1, y1, x2, y2 in [box.box]
        ] or [f"{one.picture}: nothing with a score of {least:g} or more"]  # fmt: skip
    return told


def places(folder: Path, pictures: list[Path]) -> list[Path]:
    """Return the paths to draw pictures to: PNG files with the pictures' names, numbered if two names are equal.

    Raises:
        UserError: exit 2 if an input would be overwritten, exit 6 if the folder cannot be written.
    """
    taken: list[Path] = []
    for path in pictures:
        place, number = folder / f"{path.stem}.png", 2
        while place in taken:
            place, number = folder / f"{path.stem}_{number}.png", number + 1
        refuse_input(place, pictures, OTHER_FOLDER)
        check_writable(place, OTHER_FOLDER)
        taken.append(place)
    return taken
