"""Picture files: 16 bits, transparency and the camera's orientation are read as a viewer shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.pictures import read_all, read_picture
from engine.errors import BAD_DATA, UserError
from tests.tools.noise import noise

DEEP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
UPRIGHT = {  # for each EXIF orientation, NumPy's operation on the stored pixels
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_become_eight(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.pgm":
        path.write_bytes(b"P5 8 8 65535\n" + DEEP.astype(">u2").tobytes())
    else:
        Image.fromarray(DEEP).save(path)
    grey = (DEEP / 257).round().astype(np.uint8)
    assert np.array_equal(read_picture(path, 8), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_without_a_known_white_are_refused_by_name(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(DEEP.astype(kind)).save(path)
    with pytest.raises(UserError, match=f"{path}.* 8 or 16 bits") as fault:
        read_picture(path, 8)
    assert fault.value.code == BAD_DATA


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"no picture", "an unknown picture format, or damaged at its beginning"), (b"", "an empty file")],
)
def test_a_file_that_is_no_picture_is_named_and_no_address_in_memory(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError) as fault:
        read_picture(path, 8)
    assert (str(fault.value), fault.value.code) == (f"cannot read {path}: {what}", BAD_DATA)


@pytest.mark.parametrize("number", UPRIGHT)
def test_pictures_stand_as_their_camera_was_held(number: int, tmp_path: Path) -> None:
    pixels, exif = noise(1)[0].numpy(), Image.Exif()
    exif[0x0112] = number
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png", 8), UPRIGHT[number](pixels))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_notes_of_a_camera_spoil_no_picture(tmp_path: Path) -> None:
    pixels = noise(1)[0].numpy()
    for notes in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=notes)
        assert np.array_equal(read_picture(tmp_path / "a.png", 8), pixels)


def test_transparent_pictures_are_seen_on_white(tmp_path: Path) -> None:
    """Black ink on a transparent ground is stored as black everywhere: without transparency the drawing is lost."""
    ink = np.zeros((8, 8), np.uint8)
    ink[2:5] = 255  # opacity
    seen = np.repeat(255 - ink[..., None], 3, 2)
    black = np.zeros((8, 8, 3), np.uint8)
    palette = Image.fromarray((ink > 0).astype(np.uint8), "L").convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 0])
    for number, picture in enumerate(
        (Image.fromarray(np.dstack([black, ink])), Image.fromarray(np.dstack([black[..., 0], ink]), "LA"), palette)
    ):
        path = tmp_path / f"{number}.png"
        picture.save(path, **({"transparency": bytes([0, 255])} if picture is palette else {}))
        assert np.array_equal(read_picture(path, 8), seen), picture.mode


@pytest.mark.parametrize("workers", [0, 2])
def test_several_processes_read_what_one_does(workers: int, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    files = [(tmp_path / f"{number:03}.png", 0) for number in range(150)]
    for path, _ in files:
        Image.fromarray(draws.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
    found = read_all(files, 6, "pictures", workers)
    assert all(np.array_equal(found[place], read_picture(path, 6)) for place, (path, _) in enumerate(files))
    files[77][0].write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"077\.png: an unknown picture format") as fault:
        read_all(files, 6, "pictures", workers)
    assert (fault.value.code, fault.value.hint) == (BAD_DATA, "remove or replace the picture")
