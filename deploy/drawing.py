"""Draw the boxes that a detector finds into its pictures, each with its class and score."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from deploy.boxes import OTHER_FOLDER, Corners, Found
from engine.data.pictures import decode
from engine.system.files import write_bytes

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def free(size: Sequence[float], box: Sequence[float], picture: tuple[int, int], taken: Sequence[Corners]) -> Corners:
    """Return where the label of a box goes: inside the picture, at the box, with the least of it over other labels.

    Args:
        size: width and height of the label, in pixels.
        box, taken: left, upper, right and lower edges, in pixels.
        picture: width and height.
    """
    (wide, high), (x1, y1, x2, y2) = size, box
    corners = [(x, y) for y in (y1 - high, y2, y1, y2 - high) for x in (x1, x2 - wide)]
    places: list[Corners] = []
    for x, y in corners:
        left, top = (
            max(0.0, min(at, side - length)) for at, side, length in ((x, picture[0], wide), (y, picture[1], high))
        )
        places.append((left, top, left + wide, top + high))
    return min(places, key=lambda place: sum(_shared(place, other) for other in taken))


def _shared(one: Corners, other: Corners) -> float:
    """Return the area of both, in pixels."""
    wide, high = (min(one[n + 2], other[n + 2]) - max(one[n], other[n]) for n in range(2))
    return max(0.0, wide) * max(0.0, high)


def draw(one: Found, to: Path) -> None:
    """Draw a picture with its boxes and write it as PNG."""
    from PIL import ImageDraw

    picture = decode(one.picture)
    canvas, line = ImageDraw.Draw(picture), max(1, round(min(picture.size) / 200))
    labels: list[Corners] = []
    for box in reversed(one.boxes):  # the highest score on top
        colour = COLOURS[sum(map(ord, box.name)) % len(COLOURS)]
        x1, y1, x2, y2 = box.box
        canvas.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=line)
        text = f"{box.name} {box.score:.2f}"
        label = free(canvas.textbbox((0, 0), text)[2:], box.box, picture.size, labels)
        labels.append(label)
        canvas.rectangle(label, fill=colour)
        canvas.text(label[:2], text, fill="white")
    made = io.BytesIO()
    picture.save(made, "PNG")
    write_bytes(to, made.getvalue(), remedy=OTHER_FOLDER)
