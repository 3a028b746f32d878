"""torch.export of a network, with plain messages for its errors."""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from engine.errors import no_memory
from engine.numerics import random_state
from engine.system import signals
from models.check import Misdeclared, one_line

PICTURES = 3
"""Pictures of the example: a number that code is unlikely to contain as a constant, and not form.CHECKED."""

MOST = 2**15
"""Most pictures of a batch. torch.export needs one path, and above 65,535 batch norm takes another one on a GPU."""


def exported(model: nn.Module, arch: str, like: Tensor) -> ExportedProgram:
    """Export the graph of ATen operations of a network in evaluation, for any number of pictures.

    Args:
        arch: the network's name in messages.
        like: pictures with the size, type and device to read.

    Raises:
        Misdeclared: exit 2 for a network that cannot be captured, with the line of its code.
    """
    shapes: Any = ({0: Dim("batch", min=2, max=MOST)},)
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:  # def forward(self, *inputs)
        shapes = (shapes,)
    with silent(), _uncollected(), signals.held(), random_state.kept():
        try:
            return torch.export.export(
                model, (like[:1].repeat(PICTURES, 1, 1, 1),), strict=False, dynamic_shapes=shapes
            )
        except Exception as fault:
            if no_memory(fault):
                raise
            raise Misdeclared(f"--arch {arch}: it cannot be captured: {_in_words(fault)}", _hint(fault)) from fault


def _in_words(fault: Exception) -> str:
    if "specialized it to be a constant" in str(fault):
        return "its code works for only one number of pictures"
    if "Constraints violated" in str(fault):
        return "an operation computes in another way for other numbers of pictures"
    if "fake tensor in the exported program constant" in str(fault):
        return "its code reads .data of a tensor"
    return re.sub(r"\(unhinted.*", "", one_line(fault)).strip()


def _hint(fault: Exception) -> str:
    if "specialized it to be a constant" in str(fault):
        return (
            "read the number of pictures by x.shape[0]: torch.export makes a constant of len(x) and of int(x.shape[0])"
        )
    if "Constraints violated" in str(fault):
        return 'use another one; torch.cdist needs compute_mode="donot_use_mm_for_euclid_dist"'
    if "fake tensor in the exported program constant" in str(fault):
        return "take .detach() instead of .data"
    if "data-dependent" in str(fault):
        return "let no `if` and no .item() depend on the values in a tensor"
    return "change it so that torch.export accepts it: https://docs.pytorch.org/docs/stable/export.html"


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Silence the warnings of torch.export, and its graphs on stderr: a capture reports the same faults."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the garbage collector: the first export imports a lot, and nearly all of its objects stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
