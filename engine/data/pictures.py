"""Pictures in files, decoded: upright, with 8 bits a channel, square. Which files there are: image_folder.py."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.cli.datasets import SHIFT
from engine.data import crops
from engine.data.many_files import each
from engine.errors import BAD_DATA, UserError


def decode(path: Path) -> Any:
    """A picture's file as an RGB picture of PIL's, as its camera says it was held, 8 bits a channel.

    Raises:
        UserError: exit 4, naming the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(path.read_bytes()))  # small files: reading them whole is faster than by handle
        image.load()
        with contextlib.suppress(Exception):  # what a camera noted in a wrong form (many errors) spoils no picture
            ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)
    except UnidentifiedImageError as fault:  # its own words name the bytes by their address in memory
        what = "no kind of picture known here, or damaged at its beginning" if path.stat().st_size else "an empty file"
        raise UserError(f"cannot read {path}: {what}", "remove or replace the picture", BAD_DATA) from fault
    except FileNotFoundError as fault:
        raise UserError(f"cannot read {path}: no such file", "check the path", BAD_DATA) from fault
    except IsADirectoryError as fault:
        raise UserError(f"cannot read {path}: it is a folder", f"name its pictures: {path}/*", BAD_DATA) from fault
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:  # PIL raises all of these
        raise UserError(f"cannot read {path}: {fault}", "remove or replace the picture", BAD_DATA) from fault


def _rgb(image: Any) -> Any:
    """PIL's own conversion takes what exceeds 255 for white, and keeps the hidden colours of transparent pixels."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257  # 65535 is white
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("nothing says which of its numbers is white; save it with 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")  # as it is seen on a page
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("RGB")


def read_picture(path: Path, size: int, crop: str = SHIFT) -> np.ndarray:
    """Decode, scale and cut out the middle, as crops.middle does: uint8 (size, size, 3).

    Raises:
        UserError: exit 4, naming the file.
    """
    return np.asarray(crops.middle(decode(path), size, crop))


def read_part(path: Path, size: int, seed: int, flip: bool) -> np.ndarray:
    """Decode and cut out a random part, as crops.part does: uint8 (size, size, 3).

    Raises:
        UserError: exit 4, naming the file.
    """
    return np.asarray(crops.part(decode(path), size, seed, flip))


def read_all(files: list[tuple[Path, int]], size: int, label: str, workers: int = 0) -> Tensor:
    """The pictures of `files`, uint8 (N, size, size, 3); many are announced, and counted on a terminal.

    Args:
        workers: processes that read; 0: this one.

    Raises:
        UserError: exit 4, naming the file.
    """
    pictures = np.empty((len(files), size, size, 3), np.uint8)
    for place, found in enumerate(each(partial(_read_or_none, size=size), files, workers, label)):
        pictures[place] = read_picture(files[place][0], size) if found is None else found
    return torch.from_numpy(pictures)


def _read_or_none(path: Path, size: int) -> np.ndarray | None:
    """None where a picture cannot be read: another process could not say why in the same words."""
    try:
        return read_picture(path, size)
    except UserError:
        return None
