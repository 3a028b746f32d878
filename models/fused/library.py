"""The compiled library of the loops in source/."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

from engine.system.compiled import AVX2, AVX512, FLAGS, X86, Sources, Unavailable, load

OPENMP = ("-fopenmp", "-fno-trapping-math")
"""The loops run on the threads of torch's OpenMP, which is found when the library is loaded, so nothing is linked. A second
OpenMP would compete for the processors with threads that wait for work."""
SOURCES = Sources(
    "the loops between layers", Path(__file__).parent / "source", "fused", {"avx2": (*AVX2, "-mfma"), "avx512": AVX512} if X86 else {},
    flags=(*FLAGS, *OPENMP),
)  # fmt: skip
_TYPES = {
    "mc_moments": (c_void_p, c_int, c_int64, c_int, *(c_void_p,) * 3),
    "mc_coded": (c_void_p, c_int, c_int64, c_int, *(c_void_p,) * 5, c_int),
    "mc_settled": (c_void_p, c_int64, c_int, *(c_void_p,) * 6, c_int),
    "mc_sums": (c_void_p, c_int, c_void_p, c_int, c_int64, c_int, *(c_void_p,) * 5),
    "mc_back": (c_void_p, c_int, c_void_p, c_int, c_int64, c_int, *(c_void_p,) * 7),
    "mc_selected": (c_void_p, c_int, c_int64, c_int, *(c_void_p,) * 4),
    "mc_returned": (c_void_p, c_void_p, c_void_p, c_int, c_int64, c_int, *(c_void_p,) * 5),
}


@cache
def loaded() -> ctypes.CDLL:
    """Return the library; compile it first if the cache folder does not have it.

    Raises:
        Unavailable: no compiler, no folder to keep the library in, or another OpenMP than torch's.
    """
    try:
        library = load(SOURCES.build())
    except Unavailable as fault:
        if "undefined symbol" in str(fault):
            raise Unavailable(f"the loops need the OpenMP of GCC, which torch has: set CXX=g++ ({fault})") from fault
        raise
    for name, types in _TYPES.items():
        if not hasattr(library, name):
            raise Unavailable(f"{library._name} has no {name}")
        function = getattr(library, name)
        function.argtypes, function.restype = types, c_int
    return library
