"""Labels of boxes lie inside their picture, and beside each other where there is room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.boxes import Box, Corners, Found, places
from deploy.drawing import draw, free
from engine.errors import CANNOT_WRITE, UserError

PICTURE = (100, 80)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((20, 30, 60, 50), (20, 20, 50, 30)),  # above
        ((20, 4, 60, 50), (20, 0, 50, 10)),  # as far above as the picture goes
        ((90, 30, 100, 50), (70, 20, 100, 30)),  # its right end at the picture's
        ((0, 0, 100, 80), (0, 0, 30, 10)),
    ],
)
def test_a_label_lies_above_its_box_inside_the_picture(box: Corners, place: Corners) -> None:
    assert free((30, 10), box, PICTURE, []) == place


def test_a_label_makes_room_for_others() -> None:
    box, labels = (20, 30, 60, 50), list[Corners]()
    for _ in range(4):
        labels.append(free((30, 10), box, PICTURE, labels))
    for number, one in enumerate(labels):
        for other in labels[:number]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1], labels


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.full((80, 100, 3), 9, np.uint8)).save(tmp_path / "a.png")
    draw(Found(tmp_path / "a.png", (Box("disc", 0.91, (20.0, 30.0, 60.0, 50.0)),)), tmp_path / "b.png")
    found = np.asarray(Image.open(tmp_path / "b.png").convert("RGB")).astype(int)
    assert found.shape == (80, 100, 3)
    assert (found[50, 20:61] != 9).any(1).all()
    assert (found[31:49, 22:58] == 9).all()


def test_a_folder_that_cannot_be_written_is_refused_with_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.png").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    for folder, name in ((tmp_path / "file", "a.png"), (tmp_path, "a.png")):
        with pytest.raises(UserError) as fault:
            places(folder, [Path(name)])
        assert (fault.value.code, fault.value.hint) == (CANNOT_WRITE, "name another folder for --draw")
    with pytest.raises(UserError) as fault:
        draw(Found(tmp_path / "b.png", ()), tmp_path / "file" / "b.png")
    assert (fault.value.code, fault.value.hint) == (CANNOT_WRITE, "name another folder for --draw")
