"""The native engine as a library, and the instruction sets that it runs by."""

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
"""For tests, where the environment asks: the kernels of an instruction set that processors seldom have, without it."""
KERNELS = "MODEL_COMPRESSION_KERNELS"
EMULATE = "MODEL_COMPRESSION_EMULATE"
MORE_FLAGS: tuple[str, ...] = ("-pthread",)


def sources() -> Sources:
    """What the engine is made of, in the environment as it is."""
    every = SETS | EMULATED if os.environ.get(EMULATE) == "1" else SETS
    folder = Path(__file__).parent / "source"
    return Sources("the native engine", folder, "engine", every, BASES, (*FLAGS, *MORE_FLAGS))


def build() -> Path:
    """The library, compiled if it is missing.

    Raises:
        Unavailable: see `engine`.
    """
    return sources().build()


@dataclass(frozen=True)
class Engine:
    """A loaded library and the instruction set that it is told to use.

    Args:
        which: its number in the library.
        kernels: its name.
        widths: how it wants weights.
    """

    library: ctypes.CDLL
    which: int
    kernels: str
    path: Path
    widths: Widths


def engine(kernels: str | None = None) -> Engine:
    """The engine of this machine, compiled where no library of these sources is there yet.

    Args:
        kernels: the instruction set; None: the best one that runs here, or the one that the environment names.

    Raises:
        Unavailable: no compiler, nowhere to keep the library, or none that can be loaded.
    """
    path, library = _library()
    known = _known(library)
    asked = kernels or os.environ.get(KERNELS) or [*known][-1]
    names = {name.lower(): name for name in known}
    if asked.lower() not in names:
        raise Unavailable(f"{KERNELS}={asked}: here are {', '.join(known)}")
    name = names[asked.lower()]
    return Engine(library, known[name], name, path, Widths.of(library, known[name]))


def instruction_sets() -> list[str]:
    """Those that run here, the best one last."""
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
        raise Unavailable(f"{path} is of another version")
    return path, library


def _known(library: ctypes.CDLL) -> dict[str, int]:
    """The instruction sets that run here by name, with their numbers in the library."""
    found, number = {}, 0
    while name := library.mc_name(number):
        if library.mc_runs_here(number):
            found[name.decode()] = number
        number += 1
    return found
