"""The identity of a ladder in its ladder.json: data, flags, recipes and steps. Rows of different ladders never mix."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from engine.cli.datasets import SHIFT
from engine.cli.options import OF_THEIR_OWN
from engine.data import catalogue, pixels, skip_bad
from engine.data.splits import Data
from engine.errors import UserError
from quant import recipes
from scripts.ladder import notes, steps
from scripts.ladder.options import Options

SAME = 1e-6  # tolerance of mean and std: above rounding differences, below one changed picture in 50,000
DIGITS = 10  # decimals of mean and std


def of(options: Options) -> dict[str, Any]:
    """Return the identity of the ladder that the flags ask for. Read all pictures once, to report faults early.

    Raises:
        UserError: as skip_bad.listed and catalogue.load.
    """
    asked = options.data
    folder = None
    if options.dataset == "imagefolder":
        folder = skip_bad.listed(asked.root, asked.skip_bad, asked.num_workers)
    data = catalogue.load(
        options.dataset,
        asked.root,
        None,
        asked.image_size,
        asked.val,
        asked.num_workers,
        folder=folder,
        crop=asked.crop or SHIFT,
    )
    pictures = f"{len(folder.train)} + {len(folder.test)} pictures of {len(folder.names)} classes" if folder else ""
    mean, std = _statistics(data)
    short = options.dataset if options.dataset in OF_THEIR_OWN else "other"
    return {
        "data set": f"{options.dataset} {pictures}".strip(),
        "pictures": f"{len(data.train)} to train on, {len(data.test)} to judge on",
        **({"boxes": [_boxes(part) for part in (data.train, data.test)]} if data.info.boxes else {}),
        "mean": mean,
        "std": std,
        **({"classes": list(data.info.names)} if data.info.names else {}),
        **({"--arch": options.arch} if options.arch != steps.NETWORK else {}),
        **({"--core": options.core} if options.core else {}),
        "--image_size": asked.image_size,
        "--crop": asked.crop,
        "--flip": asked.flip,
        "--val": asked.val,
        "--epochs": options.epochs,
        "--recipe": "seed" if options.original else "default",  # the word in older ladder.json files
        "--precision": options.precision,
        **{f"recipe of {family}": text for family, text in recipes.table(short, options.original).items()},
        **{f"step {name}": step.line for name, step in steps.STEPS.items()},
    }


def compare_or_write(path: Path, now: dict[str, Any], begun: bool) -> dict[str, Any]:
    """Write a ladder's identity, or refuse to mix it with another ladder. Keys that an older file lacks do not count.

    Args:
        path: the ladder.json.
        now: the identity that the flags ask for.
        begun: whether the present ladder has any results or states; without them it may be replaced.

    Returns:
        The content for the file once a row is added. An older file may lack new keys, for example new steps.

    Raises:
        UserError: exit 2 for another ladder, exit 3 if the file is damaged.
    """
    was = notes.load(path, hint="delete it; the next run writes it again") if path.exists() else {}
    if was:
        for flag in ("--flip", "--crop"):
            was.setdefault(flag, None)  # older files lack these flags
    changed = [f"{key}: {_said(was[key])} -> {_said(now.get(key))}" for key in was if not _same(was[key], now.get(key))]
    if changed and begun:
        raise UserError(
            f"{path.parent}/ holds another ladder: {'; '.join(changed[:3])}",
            f"repeat the flags of that ladder, or move {path.parent}/ and {Path('runs') / path.parent}/ away",
        )
    said = now if changed else {**now, **was}
    if changed or not was:
        notes.save(path, said)
    return said


def write(path: Path, said: dict[str, Any]) -> None:
    """Write a ladder's identity, if its file holds another content."""
    if notes.load(path) != said:
        notes.save(path, said)


def _same(was: Any, now: Any) -> bool:
    if isinstance(was, list) and isinstance(now, list) and all(isinstance(x, float) for x in [*was, *now]):
        return len(was) == len(now) and all(abs(a - b) < SAME for a, b in zip(was, now, strict=True))
    return was == now


def _said(value: Any) -> str:
    return "default" if value is None else str(value)


def _boxes(part: Any) -> str:
    """Return the number of a part's boxes and a hash of their places, classes and pictures."""
    objects, digest = part.objects, hashlib.sha256()
    for array in (objects.ends, objects.boxes, objects.labels, objects.crowd):
        digest.update(array.tobytes())
    return f"{len(objects.labels):,} of {digest.hexdigest()[:16]}"


def _statistics(data: Data) -> tuple[list[float], list[float]]:
    """Return mean and std of the training pictures to DIGITS decimals. For streamed data, of their sample."""
    images = getattr(data.train, "images", None)
    if images is None:
        return list(data.info.mean), list(data.info.std)
    mean, std = pixels.statistics(images, DIGITS)
    return list(mean), list(std)
