"""Describe the file of --weights by flags, as a state_dict names neither its network nor its pictures."""

from __future__ import annotations

import shlex

from engine.checkpoint.description import Description
from engine.cli import datasets
from engine.cli.naming import called, repeated
from engine.cli.options import DataFlags, Works
from engine.data import catalogue
from engine.data.info import DataInfo
from engine.errors import UserError


def description(options: Works, trains: bool = False, judges: bool = True) -> Description | None:
    """Return the description of the file of --weights for models.files.open; None without --weights.

    Args:
        trains: whether fresh layers are trained afterwards.
        judges: whether the network sees pictures of the data set, and is not only counted.

    Raises:
        UserError: if nothing names the pictures (exit 2); for a folder without pictures (exit 4).
    """
    network, data = options.network, options.data
    if network.weights is None:
        return None
    if judges:
        network.needs_boxes(data.dataset)
    info = _pictures(data) if judges else None
    return Description(
        arch=network.arch,
        cfg=network.cfg,
        core=network.core,
        classes=network.classes or (info.classes if info else None),
        said_by="--classes" if network.classes else info.label if info else "",
        image_size=info.image_size if info else data.image_size or 32,
        seed=options.machine.seed if trains else None,
        remedy=f"its last layer would be untrained; train first: {_training(options)}",
    )


def _pictures(chosen: DataFlags) -> DataInfo:
    """Describe the data set before its pictures are read."""
    name = chosen.dataset or "auto"
    if name == "auto":
        if not catalogue.has_cifar10(chosen.root):  # no guess: accuracies on other pictures would be meaningless
            raise UserError(
                f"--weights: a state_dict does not name its pictures, and {chosen.root} holds no CIFAR-10",
                f"name them: --dataset {datasets.IN_WORDS}",
            )
        name = "cifar10"
    return catalogue.describe(name, chosen.image_size, chosen.root, chosen.crop or datasets.SHIFT)


def _training(options: Works) -> str:
    """Return the command that trains a network from these weights on these pictures."""
    network, data = options.network, options.data
    which = ["--arch", network.arch] if network.arch else []
    same = repeated(
        "", data.root, cfg=network.cfg, weights=network.weights, classes=network.classes, dataset=data.dataset,
        image_size=data.image_size, crop=data.crop, mean=data.mean, std=data.std,
    )  # fmt: skip
    return called(shlex.join(["prune.train", *which, *same]))
