"""Check the output of a user's network, and word the errors of its code.

user_code.py imports the code.
"""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from engine.errors import UserError, wording_errors
from engine.system.messages import notice
from model_compression import HOME, PACKAGES

SEE = "see docs/own-network.md"
_NOT_THEIRS = (
    "<frozen",
    *(str(Path(module.__file__ or "").parent) + os.sep for module in (torch, importlib)),
    *(str(HOME / package) + os.sep for package in PACKAGES),
)


class Misdeclared(UserError):
    """The error for a user's network or module that does not meet the requirements (exit 2)."""


def one_line(fault: BaseException) -> str:
    """Return an error of the user's code in one line, with its file and line."""
    if isinstance(fault, SyntaxError):
        place, text = f"{fault.filename}:{fault.lineno}: ", f"{type(fault).__name__}: {fault.msg}"
    else:
        frames = reversed(traceback.extract_tb(fault.__traceback__))
        place = next((f"{f.filename}:{f.lineno}: " for f in frames if not f.filename.startswith(_NOT_THEIRS)), "")
        text = str(fault).partition("\n")[0]
        if not isinstance(fault, ImportError):
            text = f"{type(fault).__name__}: {text}"
    return place.removeprefix(os.getcwd() + os.sep) + text


@contextmanager
def as_misdeclared(arch: str, hint: str) -> Iterator[None]:
    """Turn exceptions of the user's code, also sys.exit(), into Misdeclared; running out of memory passes through."""
    with wording_errors(lambda fault: Misdeclared(f"--arch {arch}: {one_line(fault)}", hint)):
        yield


def module(network: nn.Module, arch: str) -> None:
    """Check that a user's network does what every nn.Module does: it has a state_dict, and changes its mode.

    Raises:
        Misdeclared: if it does not, is a TorchScript module, or has tensors without a shape (exit 2).
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise Misdeclared(f"--arch {arch}: its network is compiled by TorchScript", "return the module itself")
    with as_misdeclared(arch, f"let __init__ call super().__init__() first, and replace no method of nn.Module; {SEE}"):
        network.state_dict()
        mode = network.training
        network.eval().train(mode)
    if lazy := [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if is_lazy(tensor)]:
        raise Misdeclared(
            f"--arch {arch}: {lazy[0]} has no shape yet: a lazy module gets it when it runs",
            "run the network once before the function returns it: net.eval()(torch.zeros(1, 3, 32, 32))",
        )


def values(network: nn.Module, arch: str) -> None:
    """Check that a user's network has parameters of float32, and values for all of them.

    Raises:
        Misdeclared: if not (exit 2).
    """
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_meta:
            raise Misdeclared(f"--arch {arch}: {name} has no values: it is on the device meta", "make it on the CPU")
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise Misdeclared(f"--arch {arch}: {name} is {dtype}, not float32", "return network.float()")


def answer(shape: tuple[int | None, ...], rows: float, arch: str, classes: int) -> None:
    """Check that a network's output is one number for each class, in one row for each picture.

    Args:
        shape: the shape of its output, with None for a size that depends on the number of pictures.
        rows: its rows for each picture.

    Raises:
        Misdeclared: if the shape is another one (exit 2).
    """
    if shape != (None, classes) or rows != 1:
        found = ", ".join(("B" if rows == 1 else f"{rows:g}B") if size is None else str(size) for size in shape)
        raise Misdeclared(
            f"--arch {arch}: forward returns ({found}) for B pictures and {classes} classes, not (B, {classes})",
            "the function must use its argument classes (num_classes if it takes only **kwargs); the network must return one "
            "number for each class",
        )


@cache
def say_undeclared(arch: str) -> None:
    """Print once that a network's declarations of channels are ignored."""
    notice(f"{arch} declares channel groups, which are ignored: the groups are found in its graph")
