"""Build and load the native engine's library, and choose its instruction set."""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path

from deploy.native import steps
from deploy.native.steps import Widths
from engine.system.compiled import AVX2, AVX512, FLAGS, X86, Sources, Unavailable, load

VNNI = (*AVX512, "-mavx512vnni")
SETS: dict[str, tuple[str, ...]] = {
    "avx2": AVX2,
    "avxvnni": (*AVX2, "-mavxvnni"),
    "avx512vnni": VNNI,
    "avx512popcnt": (*VNNI, "-mavx512vpopcntdq"),
    "amx": (*VNNI, "-mavx512vpopcntdq", "-mamx-tile", "-mamx-int8"),
} if X86 else {}  # fmt: skip
BASES = {"amx": "avx512popcnt", "amx_emulated": "avx512popcnt"}
EMULATED = {"amx_emulated": SETS["avx512popcnt"]} if X86 else {}
"""For tests, if MODEL_COMPRESSION_EMULATE is 1: kernels that emulate an instruction set that few processors have."""
KERNELS = "MODEL_COMPRESSION_KERNELS"
EMULATE = "MODEL_COMPRESSION_EMULATE"
MORE_FLAGS: tuple[str, ...] = ("-pthread",)


def sources() -> Sources:
    """Return the engine's source files and compiler flags, as the environment variables ask."""
    every = SETS | EMULATED if os.environ.get(EMULATE) == "1" else SETS
    folder = Path(__file__).parent / "source"
    return Sources("the native engine", folder, "engine", every, BASES, (*FLAGS, *MORE_FLAGS))


def build() -> Path:
    """Return the path of the library, compiled if it is missing.

    Raises:
        Unavailable: see `engine`.
    """
    return sources().build()


@dataclass(frozen=True)
class Engine:
    """A loaded library and its instruction set.

    Args:
        which: the instruction set's number in the library.
        kernels: the instruction set's name.
        widths: its layout of weights.
    """

    library: ctypes.CDLL
    which: int
    kernels: str
    path: Path
    widths: Widths


def engine(kernels: str | None = None) -> Engine:
    """Return this machine's engine; compile it if its sources have changed or it does not exist yet.

    Args:
        kernels: the instruction set; None: that of MODEL_COMPRESSION_KERNELS, else the best one that runs here.

    Raises:
        Unavailable: if there is no compiler, no cache folder, no such instruction set, or the library cannot be loaded.
    """
    path, library = _library()
    known = _known(library)
    asked = kernels or os.environ.get(KERNELS) or [*known][-1]
    names = {name.lower(): name for name in known}
    if asked.lower() not in names:
        raise Unavailable(f"{KERNELS}={asked} is not an instruction set of this machine: {', '.join(known)}")
    name = names[asked.lower()]
    return Engine(library, known[name], name, path, Widths.of(library, known[name]))


def instruction_sets() -> list[str]:
    """Return the names of the instruction sets that run here, the best one last."""
    return [*_known(_library()[1])]


@functools.cache
def _library() -> tuple[Path, ctypes.CDLL]:
    path = build()
    library = load(path)
    try:
        steps.declare(library)
    except AttributeError as fault:
        raise Unavailable(f"{path} cannot be loaded: {fault}") from fault
    if library.mc_step_size() != ctypes.sizeof(steps.Step):
        raise Unavailable(f"{path} belongs to another version")
    return path, library


def _known(library: ctypes.CDLL) -> dict[str, int]:
    """Return the instruction sets that run here: their numbers in the library by name."""
    found, number = {}, 0
    while name := library.mc_name(number):
        if library.mc_runs_here(number):
            found[name.decode()] = number
        number += 1
    return found
