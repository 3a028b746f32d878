"""Decode picture files: upright, 8 bits a channel, square. image_folder.py lists the files."""

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
from engine.data.listing import check_regular
from engine.data.many_files import each
from engine.errors import BAD_DATA, UserError


def decode(path: Path) -> Any:
    """Decode a file to a PIL picture in RGB with 8 bits a channel, turned as its EXIF data say.

    Raises:
        UserError: naming the file (exit 4).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_regular(path)
    try:
        image = Image.open(io.BytesIO(path.read_bytes()))  # faster than PIL's own reading, as the files are small
        image.load()
        with contextlib.suppress(Exception):  # malformed EXIF data (many types of errors) do not spoil the picture
            ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)
    except UnidentifiedImageError as fault:  # PIL's message shows only an address in memory
        what = "an unknown picture format, or damaged at its beginning" if path.stat().st_size else "an empty file"
        raise UserError(f"cannot read {path}: {what}", "remove or replace the picture", BAD_DATA) from fault
    except FileNotFoundError as fault:
        raise UserError(f"cannot read {path}: no such file", "check the path", BAD_DATA) from fault
    except IsADirectoryError as fault:
        raise UserError(f"cannot read {path}: it is a folder", f"name its pictures: {path}/*", BAD_DATA) from fault
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:  # PIL raises all of these
        raise UserError(f"cannot read {path}: {fault}", "remove or replace the picture", BAD_DATA) from fault


def _rgb(image: Any) -> Any:
    """Convert to RGB; PIL's own conversion clips 16 bits to white and keeps hidden colours of transparent pixels."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257  # 65535 is white
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("it does not define which value is white; save it with 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")  # transparency is blended onto white
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("RGB")


def read_picture(path: Path, size: int, crop: str = SHIFT) -> np.ndarray:
    """Decode, scale and cut out the middle, as crops.middle does: uint8 (size, size, 3).

    Raises:
        UserError: naming the file (exit 4).
    """
    return np.asarray(crops.middle(decode(path), size, crop))


def read_part(path: Path, size: int, seed: int, flip: bool) -> np.ndarray:
    """Decode and cut out a random part, as crops.part does: uint8 (size, size, 3).

    Raises:
        UserError: naming the file (exit 4).
    """
    return np.asarray(crops.part(decode(path), size, seed, flip))


def read_all(files: list[tuple[Path, int]], size: int, label: str, workers: int = 0) -> Tensor:
    """Read the pictures of `files`, uint8 (N, size, size, 3), with progress on a terminal if there are many.

    Args:
        workers: number of reading processes; 0 uses this process.

    Raises:
        UserError: naming the file (exit 4).
    """
    pictures = np.empty((len(files), size, size, 3), np.uint8)
    for place, found in enumerate(each(partial(_read_or_none, size=size), files, workers, label)):
        pictures[place] = read_picture(files[place][0], size) if found is None else found
    return torch.from_numpy(pictures)


def _read_or_none(path: Path, size: int) -> np.ndarray | None:
    """Return None if a picture cannot be read; a worker's error would reach the main process in other words."""
    try:
        return read_picture(path, size)
    except UserError:
        return None
