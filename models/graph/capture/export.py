"""torch.export of a network, and its faults in the words of a user."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from engine.system import signals
from models.check import Misdeclared, one_line

PICTURES = 3
"""In the example: a number that code is unlikely to hold as a constant, and not that of capture.CHECKED."""

BATCH = 2**15
"""Pictures at most: with more than 65,535 batch norm takes another path on a GPU, and torch.export asks for one."""


def exported(model: nn.Module, arch: str, like: Tensor) -> ExportedProgram:
    """The graph of ATen operations of a network in evaluation, for any number of pictures.

    Args:
        like: pictures of the size, type and device of those that it is to read.

    Raises:
        Misdeclared: for a network that cannot be captured, with the line of its code.
    """
    batch = {0: Dim("batch", min=2, max=BATCH)}
    with _silent(), _uncollected(), signals.held(), torch.random.fork_rng(devices=[]):
        try:
            return torch.export.export(
                model, (like[:1].repeat(PICTURES, 1, 1, 1),), strict=False, dynamic_shapes=(batch,)
            )
        except Exception as fault:
            raise Misdeclared(f"--arch {arch}: it cannot be captured: {_in_words(fault)}", _hint(fault)) from fault


def _in_words(fault: Exception) -> str:
    if "specialized it to be a constant" in str(fault):
        return "its code works for one number of pictures alone"
    return re.sub(r"\(unhinted.*", "", one_line(fault)).strip()


def _hint(fault: Exception) -> str:
    if "specialized it to be a constant" in str(fault):
        return "take the number from the pictures: x.shape[0]"
    if "data-dependent" in str(fault):
        return "its path must not depend on the values in a tensor: no `if` and no .item() on them"
    return "torch.export has to accept it: https://docs.pytorch.org/docs/stable/export.html"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """torch.export warns of what the checks of a capture find or refuse themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Let the garbage collector wait: the first export imports a great deal, and nearly all that it makes stays."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
