"""Signals: a training run saves before it stops, and any other command stops at once. Does not import torch.

training/run.py saves; cli/command.py prints the message and sets the exit status.
A signal that the parent process ignores (SIGHUP under nohup) stays ignored. Previous handlers are restored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.system import ranks

ENDING = (signal.SIGTERM, signal.SIGHUP)
ALL = (*ENDING, signal.SIGINT, signal.SIGUSR1)
_lost: list[int] = []  # signals whose handlers raised; their exceptions may have been swallowed


class Stopped(BaseException):
    """A signal ends this command. Like KeyboardInterrupt it is no Exception, so that error handlers do not catch it.

    Args:
        number: the signal's number.
        saved: whether the run folder holds all progress.
    """

    def __init__(self, number: int, saved: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.saved = number, saved


class Watch:
    """The signals since the last poll."""

    def __init__(self) -> None:
        self.pending = False
        self.interrupted = False
        self.stop: int | None = None

    def catch(self, number: int, _: Any) -> None:
        """Handle a signal: note it, or raise KeyboardInterrupt for a second interrupt."""
        if number == signal.SIGINT:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            with contextlib.suppress(OSError):  # print is not safe in a handler
                os.write(2, b"\nsaving after this step; a second interrupt ends at once\n")
        self.pending = True
        if number != signal.SIGUSR1:
            self.stop = self.stop or number

    def poll(self, save: Callable[[], None]) -> None:
        """Save if any rank received a signal since the last step, and stop if the signal demands it.

        Raises:
            Stopped: for every signal but SIGUSR1, after saving.
        """
        mine = self.pending + 2 * (self.stop or 0)
        self.pending = False  # a later signal is handled by the next poll
        if found := ranks.agreed(mine):
            save()
            if found > 1:
                raise Stopped(found // 2, saved=True)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Note signals during a training; the loop acts on them when it polls.

    Raises:
        Stopped: at the end, if a signal came after the last poll.
    """
    watch = Watch()
    if _lost:
        watch.stop, watch.pending = _lost[0], True
    with _handled(dict.fromkeys(ALL, watch.catch)):
        yield watch
    if watch.pending and watch.stop:  # after the last poll; the finished training has saved
        raise Stopped(watch.stop, saved=True)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise Stopped while a command runs; SIGUSR1 is ignored, as there is nothing to save yet.

    An exception from a handler may be lost: destructors and weak references' callbacks swallow it, and the import of a
    C++ module turns it into an ImportError. The signal is therefore remembered: `arriving` raises it again, and a
    training that starts later acts on it.
    """

    def stop(number: int, _: Any) -> None:
        _lost.append(number)
        raise _end(number)

    def lost(report: Any) -> None:
        if not isinstance(report.exc_value, (Stopped, KeyboardInterrupt)):
            before(report)

    before, sys.unraisablehook = sys.unraisablehook, lost
    handlers: dict[int, Any] = {**dict.fromkeys(ENDING, stop), signal.SIGUSR1: lambda *_: None}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller has its own handler
        handlers[signal.SIGINT] = stop
    try:
        with _handled(handlers):
            yield
    finally:
        sys.unraisablehook = before
        _lost.clear()


def _end(number: int) -> BaseException:
    """Return the exception for a signal when there is nothing to save."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


@contextlib.contextmanager
def arriving() -> Iterator[None]:
    """Replace an error after a signal, within `stopping`, by the signal's own exception, as the signal caused it."""
    try:
        yield
    except Exception as fault:
        if not _lost:
            raise
        raise _end(_lost[0]) from fault


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Delay signals while C++ calls back into Python, where an exception can kill the process; they act at the end."""
    noted: list[int] = []
    try:
        with _handled(dict.fromkeys(ALL, lambda number, _: noted.append(number))):
            yield
    finally:
        for number in noted:
            signal.raise_signal(number)


@contextlib.contextmanager
def ignoring() -> Iterator[None]:
    """Ignore signals while the last messages are printed, so that a further Ctrl-C causes no traceback."""
    with _handled(dict.fromkeys(ALL, signal.SIG_IGN)):
        yield


@contextlib.contextmanager
def until_here() -> Iterator[None]:
    """Ignore signals from the end of a process's work on: its last messages and its exit status are settled."""
    try:
        yield
    finally:
        ignore()


def ignore(*_: Any) -> None:
    """Ignore signals for the rest of this process, because it ends anyway or its parent decides (loader processes)."""
    if threading.current_thread() is threading.main_thread():
        for number in ALL:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():  # other threads cannot set handlers
            for number, handler in handlers.items():
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            if signal.getsignal(number) == handlers[number]:  # else `ignore` has replaced it for good
                signal.signal(number, old)
