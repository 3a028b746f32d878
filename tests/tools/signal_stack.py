"""The memory on which this thread handles signals: faulthandler's, until a library sets its own.

OpenVINO does so for each Core, and gives the memory back with the Core. Of two Cores, where the first is the first to go, what
is set in the end is memory that is no longer there. The system cannot deliver a signal then that Python handles (all its
handlers ask for that stack): it ends the process by SIGSEGV instead, and faulthandler, which needs it too, says nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class Stack(ctypes.Structure):
    """stack_t of Linux, see sigaltstack(2)."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put back what is set now."""
    if _libc is None:
        yield
        return
    before = Stack()
    _libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        _libc.sigaltstack(ctypes.byref(before), None)
