"""This thread's alternate signal stack: faulthandler's, until a library sets its own.

OpenVINO sets one for each Core and frees it with the Core. If the first of two Cores is deleted first, freed memory is left
as the signal stack. The system then cannot deliver a signal that Python handles, because all Python handlers use that
stack. It ends the process by SIGSEGV instead, and faulthandler, which needs the stack, too, prints nothing.
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
    """Restore the current signal stack at the end."""
    if _libc is None:
        yield
        return
    before = Stack()
    _libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        _libc.sigaltstack(ctypes.byref(before), None)
