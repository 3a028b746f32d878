"""Compare a detector with its core and the code around it: both have to give the same losses and boxes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.numerics import random_state
from models.check import Misdeclared
from models.detectors.shell import Boxes, Shell

AMPLITUDES = (1.0, 1e3, 1e6)
"""Factors of the made-up pictures: an untrained detector may find no box at 1, and no boxes are equal ones."""
NEAR = 1e-4
"""Largest relative difference of equal numbers: the order of sums may depend on where tensors lie in memory."""


@torch.no_grad()
def check(shell: Shell, core: Callable[[Tensor], Tensor], pictures: Tensor, arch: str) -> None:
    """Check that the code around a core reads nothing but outputs of the core, and sizes.

    Args:
        core: in eval mode.
        pictures: made-up ones, (B, 3, S, S).
        arch: the network's name in messages.

    Raises:
        Misdeclared: exit 2 if losses or boxes differ, or as Shell.losses and Shell.boxes.
    """
    half = pictures.new_tensor([[0.25, 0.25, 0.75, 0.75]]) * shell.side
    one = {"boxes": half, "labels": torch.zeros(1, dtype=torch.int64, device=pictures.device)}
    targets, output = [one] * len(pictures), core(pictures)
    own = [_seeded(lambda: shell.losses(output, targets)) for _ in range(2)]
    plain_losses = _seeded(lambda: shell.plain_losses(pictures, targets))
    if _alike(*own) and not _alike(own[0], plain_losses):  # else its losses count their calls
        raise _other(arch, "losses")
    for amplitude in AMPLITUDES:
        shown = amplitude * pictures
        try:
            plain = shell.plain_boxes(shown)
        except Misdeclared:
            if amplitude == 1:
                raise
            return  # its code refuses such large numbers
        if not all(map(_alike, map(_in_order, plain), map(_in_order, shell.boxes(core(shown))))):
            raise _other(arch, "boxes")


def _seeded(run: Callable[[], Boxes]) -> Boxes:
    """Run code that may draw random numbers, always the same ones."""
    with random_state.kept(0):
        return run()


def _alike(one: Boxes, other: Boxes) -> bool:
    """Return whether two dicts hold the same numbers, but for rounding. NaN equals NaN."""
    return one.keys() == other.keys() and all(
        one[key].shape == other[key].shape and torch.allclose(one[key], other[key], NEAR, NEAR, equal_nan=True)
        for key in one
    )


def _in_order(found: Boxes) -> Boxes:
    """Return boxes with each column sorted, as rounding may change the order of equal scores."""
    return {key: value.double().sort(0).values for key, value in found.items()}


def _other(arch: str, what: str) -> Misdeclared:
    return Misdeclared(
        f"--arch {arch}: its {what} change when it gets the outputs of --core alone: its code also reads "
        "values that pass from one module of --core to the next, or the picture",
        "also name the modules between them in --core, or one module that holds them all; read no pixels",
    )
