"""Signals: a training run saves before it stops, any other command stops at once. Needs no torch.

What saving is: training/experiment.py. What is said of it, and the exit status: cli/command.py.
A signal that the parent process ignores (SIGHUP under nohup) stays ignored, and what was there before is put back.
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
_lost: list[int] = []  # signals that have raised something; what they raised may never arrive


class Stopped(BaseException):
    """A signal ends this command. No Exception, as KeyboardInterrupt is none: nobody on the way takes it for a fault.

    Args:
        number: of the signal.
        saved: whether everything that was done is in the run folder.
    """

    def __init__(self, number: int, saved: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.saved = number, saved


class Watch:
    """What came in since the last poll."""

    def __init__(self) -> None:
        self.pending = False
        self.interrupted = False
        self.stop: int | None = None

    def catch(self, number: int, _: Any) -> None:
        """The handler: only takes a note, but for a user who asks twice."""
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
        """Between two steps: save if a signal has come, to any rank, and end if it says so.

        Raises:
            Stopped: for every signal but SIGUSR1, after saving.
        """
        mine = self.pending + 2 * (self.stop or 0)
        self.pending = False  # a signal that comes from here on is answered by the next poll
        if found := ranks.agreed(mine):
            save()
            if found > 1:
                raise Stopped(found // 2, saved=True)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """While a training runs: signals are noted, and answered when the loop polls.

    Raises:
        Stopped: at its end, if one came after the last poll.
    """
    watch = Watch()
    if _lost:
        watch.stop, watch.pending = _lost[0], True
    with _handled(dict.fromkeys(ALL, watch.catch)):
        yield watch
    if watch.pending and watch.stop:  # after the last poll; a training that has ended has saved
        raise Stopped(watch.stop, saved=True)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """While any command runs: SIGTERM and SIGHUP raise Stopped; SIGUSR1 has nothing to save yet.

    What a handler raises may never arrive: it is swallowed in destructors and in weak references' callbacks, and it
    becomes an ImportError in a module of C++ that is being imported. The signal is remembered: `arriving` raises it
    again, and a training that starts later acts on it.
    """

    def stop(number: int, _: Any) -> None:
        _lost.append(number)
        raise _end(number)

    def lost(report: Any) -> None:
        if not isinstance(report.exc_value, (Stopped, KeyboardInterrupt)):
            before(report)

    before, sys.unraisablehook = sys.unraisablehook, lost
    handlers: dict[int, Any] = {**dict.fromkeys(ENDING, stop), signal.SIGUSR1: lambda *_: None}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a caller's own
        handlers[signal.SIGINT] = stop
    try:
        with _handled(handlers):
            yield
    finally:
        sys.unraisablehook = before
        _lost.clear()


def _end(number: int) -> BaseException:
    """What a signal raises where nothing has to be saved."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


@contextlib.contextmanager
def arriving() -> Iterator[None]:
    """Within `stopping`: a fault that comes after a signal is what became of that signal, and is raised as it again."""
    try:
        yield
    except Exception as fault:
        if not _lost:
            raise
        raise _end(_lost[0]) from fault


@contextlib.contextmanager
def held() -> Iterator[None]:
    """While C++ calls back into Python: an exception raised there can end the process. Signals act at the end."""
    noted: list[int] = []
    try:
        with _handled(dict.fromkeys(ALL, lambda number, _: noted.append(number))):
            yield
    finally:
        for number in noted:
            signal.raise_signal(number)


@contextlib.contextmanager
def ignoring() -> Iterator[None]:
    """While the last words are said: an impatient user gets them without a traceback."""
    with _handled(dict.fromkeys(ALL, signal.SIG_IGN)):
        yield


def ignore(*_: Any) -> None:
    """For the rest of this process: where it ends anyway, and where its parent decides (loader processes)."""
    if threading.current_thread() is threading.main_thread():
        for number in ALL:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():  # nobody else may set handlers
            for number, handler in handlers.items():
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
