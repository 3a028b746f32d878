"""The device of a network, its memory allocator and its random state."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

from engine.errors import UserError
from engine.system import ranks

if TYPE_CHECKING:
    import torch


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_memory() -> None:
    """Make malloc keep freed memory, on Linux; call it before torch is imported.

    By default glibc maps and unmaps every large tensor, and the kernel zeroes its pages each time. On a CPU, 40 %
    of a training step was spent there (182 -> 304 pictures a second on one network).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
    except (OSError, AttributeError):
        pass  # another C library (musl): training is slower, but correct


def choose(name: str = "auto") -> torch.device:
    """Return the device of `--device`; `auto` takes a GPU if there is one. A GPU computes without TF32 from then on.

    Raises:
        UserError: if `cuda` is given but there is no GPU (exit 2).
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU that torch can use", "leave --device at auto, or use --cpu")
    if name == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # TF32 would keep only 10 bits of the mantissa
        torch.backends.cuda.matmul.allow_tf32 = False
        if ranks.count() > 1:
            return torch.device(name, ranks.local())
    return torch.device(name)


def rng_state(device: torch.device) -> list[torch.Tensor]:
    """Return torch's random state, which dropout draws from: the CPU's, then that of the GPU in use."""
    import torch

    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_rng_state(states: list[torch.Tensor]) -> None:
    """Restore the states from `rng_state`."""
    import torch

    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
