"""Child processes that may die: functions in a fork of this process, commands in forks of a server that has loaded torch.

Run as a program, this file is the server: a JSON line in, a JSON line out.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

KILLED = 137
ROOT = Path(__file__).parents[2]


def in_child(function: Callable[[], Any]) -> int:
    """Return the exit status of a fork of this process that calls `function`: 0 if it returns, 1 if it raises."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    with contextlib.suppress(BaseException):
        function()
        status = 0
    os._exit(status)


class Fork:
    """A stand-in for subprocess.Popen as the ladder uses it for `PROGRAM prune.train ...`: a fork with torch loaded."""

    def __init__(self, words: Sequence[str], stdout: IO, stderr: IO, env: dict[str, str], **_: Any) -> None:
        self.returncode: int | None = None
        for stream in (sys.stdout, sys.stderr, stdout, stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            for number, file in ((1, stdout), (2, stderr)):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            os.environ.update(env)
            module, *argv = words[2:]
            code = importlib.import_module({"bn_merge": "bn_merge.__main__"}.get(module, module)).main(argv)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self, seconds: float | None = None) -> int | None:
        return self._waited(0)

    def _waited(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGTERM)


@dataclass
class Done:
    """The end of a command: its exit status, or minus the signal that killed it."""

    status: int
    out: str
    err: str

    def __post_init__(self) -> None:
        assert "Traceback" not in self.err, self.err


class Server:
    """A server that starts commands quickly. A `pid` may be sent any signal until `wait` has been called for it."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, where: Path, *argv: object, ignore: tuple[int, ...] = ()) -> int:
        """Start `python -m ARGV` in a folder; returns its pid."""
        return self._ask(where=str(where), argv=[str(a) for a in argv], log=str(self.log), ignore=ignore)

    def wait(self, pid: int) -> Done:
        """Wait for it."""
        status = self._ask(wait=pid)
        files = [self.log / f"{pid}.{name}" for name in ("out", "err")]
        return Done(
            status, *(file.read_text() if file.exists() else "" for file in files)
        )  # the server was killed before its first line

    def run(self, where: Path, *argv: object) -> Done:
        """Start and wait."""
        return self.wait(self.start(where, *argv))

    def struck(self, number: int, after: float, where: Path, *argv: object) -> Done:
        """Start, send a signal after some seconds, and wait."""
        pid = self.start(where, *argv)
        time.sleep(after)
        os.kill(pid, number)
        return self.wait(pid)

    def close(self) -> None:
        """End the server by closing its input."""
        self._process.communicate()


def _child(question: dict[str, Any]) -> int:
    os.chdir(question["where"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(
            os.open(f"{question['log']}/{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number
        )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in question["ignore"]:
        signal.signal(number, signal.SIG_IGN)
    module, *argv = question["argv"]
    code = importlib.import_module(module).main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _within_command(fault: BaseException) -> bool:
    frames = (frame.f_code for frame, _ in traceback.walk_tb(fault.__traceback__))
    return any(code.co_name == "_command" and code.co_filename.endswith("run.py") for code in frames)


def _serve() -> None:
    import torch
    import torch._dynamo  # otherwise the first optimizer imports it

    from engine.training.run_folder import RunFolder
    from models import forms

    torch.ones(1, requires_grad=True).sum().backward()  # before any capture; see conftest._autograd_without_threads
    forms.build("nin", [2] * 8, side=8)  # the first capture takes a second
    RunFolder.draw = lambda *_: None  # type: ignore[method-assign]
    torch.set_num_threads(1)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        elif not (answer := os.fork()):
            code = 99  # no command returns it
            try:
                code = _child(question)
            except BaseException as fault:
                if isinstance(fault, KeyboardInterrupt) and not _within_command(fault):
                    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as Python ends before its first line
                    os.kill(os.getpid(), signal.SIGINT)
                traceback.print_exception(fault)
                sys.stderr.flush()
            os._exit(code)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
