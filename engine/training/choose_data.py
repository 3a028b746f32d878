"""Choose a command's pictures: those of its flags, else those of its input file; refuse pictures that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import History, Original, Trained, is_originals
from engine.cli import datasets
from engine.cli.datasets import SHIFT
from engine.cli.options import DataFlags, Normalisation, Works
from engine.data import catalogue, gray, image_folder, skip_bad
from engine.data.info import DataInfo, in_flags
from engine.data.splits import Data
from engine.errors import BAD_CHECKPOINT, BAD_DATA, USAGE, UserError
from engine.system.messages import notice, warning

_OTHER = "give the network's own data set with --dataset and --data"


def open_data(
    options: Works,
    where: torch.device,
    parent: Checkpoint | None = None,
    fresh: bool = False,
    say: bool = True,
) -> Data:
    """Open the data set of the flags, else of the checkpoint, else `auto`.

    Mean and std come from the flags, else from the checkpoint, else from the data set.

    Args:
        parent: the checkpoint of the network that will see the pictures.
        fresh: whether only its widths are taken, without weights.
        say: whether to call `say_other_pictures` for the checkpoint.

    Raises:
        UserError: if the checkpoint has too few or other classes (exit 3); if --classes is too small, or if the
            checkpoint was trained on pictures that --val holds out (exit 2);
            for a detector whose pictures nothing names (exit 2).
    """
    known = parent.dataset if parent and parent.dataset.known else None
    if not known:
        options.network.needs_boxes(options.data.dataset)
    data = _load(options.data, where, known)
    originals = parent is not None and not fresh and _from_original(parent, data.info)
    channels = parent.dataset.channels if parent else 3  # a fresh network's channels are not known yet: see show_to
    if parent:
        _refuse_other_channels(options.data, channels)
    told = parent.dataset if parent and not known and not fresh and parent.dataset.says_normalisation else None
    data.set_normalisation(*_normalisation(options.data, data, known or told, originals, channels))
    _check_fit(options, data.info, parent, fresh)
    silent = parent is not None and not fresh and not known and not told
    if silent and not originals:
        say_normalisation(options.data, data.info, options.network.weights)
    if say and parent and not fresh:
        say_other_pictures(parent.dataset, data.info)
    return data


def say_other_pictures(known: DataInfo, info: DataInfo) -> None:
    """Print a notice if the pictures' size, crop or normalisation differs from the file's (`known`)."""
    if known.image_size != info.image_size:
        size, own = info.image_size, known.image_size
        notice(f"the pictures are {size}x{size}, but the file is for {own}x{own}")
    if known.known and known.crop != info.crop:
        notice(f"the pictures are cut by --crop {info.crop}, but the file is for --crop {known.crop}")
    if known.known and (known.mean, known.std) != (info.mean, info.std):
        flags = in_flags(known.mean, known.std)
        notice(f"the pictures have another normalisation than the file's {flags}")


def show_to(chosen: DataFlags, data: Data, channels: int, arch: str) -> None:
    """Show grey pictures, with a notice, to a fresh network that reads one channel.

    Args:
        channels: 3 or 1.

    Raises:
        UserError: for --mean or --std of another number of channels (exit 2).
    """
    _refuse_other_channels(chosen, channels)
    if channels == 1:
        data.set_normalisation(*_in_gray(chosen, data))
        notice(f"{arch} reads one channel: pictures are shown in grey")


def _refuse_other_channels(chosen: DataFlags, channels: int) -> None:
    """Refuse --mean and --std of another number of channels.

    Raises:
        UserError: naming the flag (exit 2).
    """
    for name, values in (("--mean", chosen.mean), ("--std", chosen.std)):
        if values and len(values) != channels:
            what, hint = ("one channel", "one number") if channels == 1 else ("three channels", "three: R,G,B")
            raise UserError(
                f"{name} {','.join(f'{value:g}' for value in values)}: the network reads {what}", f"give {hint}"
            )


def _in_gray(chosen: DataFlags, data: Data) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std of the flags, else of the training pictures in grey."""
    if chosen.mean and chosen.std:
        return chosen.mean, chosen.std
    mean, std = gray.statistics(data)
    return chosen.mean or mean, chosen.std or std


def _load(chosen: DataFlags, where: torch.device, known: DataInfo | None) -> Data:
    """Load the data set of the flags, else of a file (`known`), else `auto`; the file's own set keeps its settings."""
    name = chosen.dataset or (known.name if known else "auto")
    if name == "auto" and image_folder.has_folders(chosen.root):
        notice(
            f"{chosen.root} holds train/ and {image_folder.tested(chosen.root)}/ folders; "
            "to use their pictures, add --dataset imagefolder"
        )
    same = known if known and chosen.dataset in (None, known.name) else None
    size = chosen.image_size or (same.image_size if same else None)
    flip = same.flip if same and chosen.flip is None else chosen.flip
    crop = chosen.crop or (same.crop if same else SHIFT)
    if chosen.skip_bad and name != "imagefolder":
        raise UserError(
            f"--skip_bad is for folders of pictures, not for {name}",
            "leave --skip_bad out: an unreadable picture is refused by name",
        )
    try:
        folder = skip_bad.listed(chosen.root, chosen.skip_bad, chosen.num_workers) if name == "imagefolder" else None
        return catalogue.load(
            name, chosen.root, where, image_size=size, val=chosen.val, workers=chosen.num_workers, flip=flip,
            folder=folder, crop=crop,
        )  # fmt: skip
    except UserError as fault:
        there = name in datasets.BOXES and chosen.root.is_dir() and any(chosen.root.iterdir())
        if (
            chosen.dataset
            or (there or name in datasets.BUILT_IN)
            or fault.code != BAD_DATA
            or image_folder.has_folders(chosen.root)
        ):
            raise
        label = known.label if known else ""
        hint = f"the file was trained on the picture folder {label}: add --data DIR"
        raise UserError(str(fault), hint, BAD_DATA) from fault


def _normalisation(
    chosen: DataFlags, data: Data, known: DataInfo | None, originals: bool, channels: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std of the flags, else of the file, else of the data set.

    Args:
        known: the file's data set, or, if that is unknown, the normalisation in the network's own code.
        originals: whether the file is the original repository's, which does not name its pictures, and `data` is CIFAR-10.
        channels: number of channels that the network reads.
    """
    info = data.info
    mean: Sequence[float] = info.mean
    std: Sequence[float] = info.std
    if known and known.name == info.name:
        mean, std = known.mean, known.std
    elif known and not known.known:
        mean, std = known.mean, known.std
        if not (chosen.mean and chosen.std):
            notice(
                f"pictures are normalised as in the network's own code, mean {_numbers(mean)}, std {_numbers(std)} "
                "(override with --mean and --std)"
            )
    elif originals:
        mean, std = catalogue.ORIGINAL
        if not (chosen.mean and chosen.std):
            said = [_numbers(values) for values in (mean, std)]
            notice(
                "the file is in the original repository's format: pictures are normalised as in that repository, "
                f"mean {said[0]}, std {said[1]} (override with --mean and --std)"
            )
    if len(mean) != channels:  # grey pictures of another data set than the file's
        mean, std = _in_gray(chosen, data)
    given = [values if values and len(values) == channels else None for values in (chosen.mean, chosen.std)]
    return given[0] or mean, given[1] or std


def say_normalisation(asked: Normalisation, info: DataInfo, path: Path | None) -> None:
    """Print the normalisation in `info` if it is assumed, as neither a file nor the flags give one."""
    taken = [f"{name} {_numbers(getattr(info, name))}" for name in ("mean", "std") if getattr(asked, name) is None]
    if taken:
        notice(
            f"{path or 'the file'} does not say how its pictures were normalised: assuming {info.label}, "
            f"{', '.join(taken)} (override with --mean and --std)"
        )


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:.4g}" for value in values)


def _check_fit(options: Works, info: DataInfo, parent: Checkpoint | None, fresh: bool) -> None:
    """Refuse a network with too few or other classes, or trained on pictures that --val holds out; see `open_data`."""
    chosen, asked = options.data, options.network.classes
    known = parent.dataset if parent and parent.dataset.known else None
    if known and known.classes != info.classes:
        text = f"{info.label} has {info.classes} classes, but the file was made for {known.classes}"
        raise UserError(text, _OTHER, BAD_CHECKPOINT)
    if parent and not fresh and (known is None or known.name == info.name):
        _check_held_out(chosen.val, parent.history)
    if known:
        _check_names(known.names, info.names, asked_for=chosen.dataset is not None)
    if parent and asked not in (None, parent.classes):
        raise UserError(f"--classes {asked}, but the file has {parent.classes}", "leave --classes out")
    classes = parent.classes if parent else asked or info.classes
    if classes < info.classes:
        text = f"{info.label} has {info.classes} classes, but the network has {classes}"
        raise UserError(text, _OTHER, BAD_CHECKPOINT if parent else USAGE)


def _from_original(parent: Checkpoint, pictures: DataInfo) -> bool:
    """Return whether a file has the original's weights, which are for CIFAR-10 without naming it, and so are the pictures."""
    named = parent.dataset.name in ("unknown", "cifar10")
    return named and ":" not in parent.arch and is_originals(parent.history) and catalogue.is_cifar10(pictures)


def _check_names(was: Sequence[str] | None, now: Sequence[str] | None, asked_for: bool) -> None:
    """Same number of classes, different names: an error, unless --dataset was given explicitly."""
    if not was or not now or list(was) == list(now):
        return
    changed = next((old, new) for old, new in zip(was, now, strict=True) if old != new)
    text = f"the file was made for other classes: {changed[0]}, but here {changed[1]}"
    if not asked_for:
        raise UserError(text, "give the file's own data set with --data DIR", BAD_CHECKPOINT)
    warning(text)


def _check_held_out(val: int, history: History) -> None:
    """Refuse a --val larger than an earlier stage's; a smaller --val holds out a subset of the same pictures."""
    trained = [stage.val if isinstance(stage, Trained) else 0 for stage in history if _saw_pictures(stage)]
    least = min(trained, default=val)
    if val > least:
        remedy = f"take --val {least}" if least else "leave --val out"
        raise UserError(
            f"--val {val} holds out pictures that the file was trained on",
            f"{remedy}, or give --val {val} to every stage from the first training on",
        )


def _saw_pictures(stage: object) -> bool:
    """Return whether a stage trained on pictures; a stage of unknown length was not run here."""
    return (isinstance(stage, Original) and not stage.made_fresh) or (
        isinstance(stage, Trained) and stage.epochs is not None
    )
