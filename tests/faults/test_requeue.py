"""Repeated signals and kill -9 at random times: the run resumes each time, and ends as if it had not been interrupted."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import INTERRUPTED, TERMINATED
from tests.faults.conftest import taken
from tests.tools.children import ROOT, Done, Server
from tests.tools.readme import marked

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


def shell(status: int) -> int:
    """Return the exit status as a shell reports it."""
    return 128 - status if status < 0 else status


def finished(server: Server, line: Sequence[str]) -> Done:
    done = server.run(Path.cwd(), *line, "--resume")
    assert done.status == 0, done.err
    return done


def struck_and_resumed(server: Server, number: int, line: Sequence[str], whole: Any, seconds: list[float]) -> None:
    """Train, send a signal at each of these times, resume, and compare the end."""
    pid = server.start(Path.cwd(), *line)
    for pause in seconds:
        time.sleep(pause)
        os.kill(pid, number)
    started = time.monotonic()
    done = server.wait(pid)
    assert time.monotonic() - started < 2
    if done.status == -number:
        assert not Path("runs").exists()  # before the program's first line, the signal ends the process by default
    else:
        assert done.status in (INTERRUPTED if number == INT else TERMINATED, 0), done.err
    finished(server, line)
    assert taken() == whole


@pytest.mark.parametrize(
    ("number", "times", "count"),
    [
        (TERM, 1, 5),
        (INT, 1, 2),
        (INT, 2, 3),
        pytest.param(TERM, 1, 50, marks=pytest.mark.slow),
        pytest.param(INT, 1, 20, marks=pytest.mark.slow),
        pytest.param(INT, 2, 20, marks=pytest.mark.slow),
        pytest.param(HUP, 1, 5, marks=pytest.mark.slow),
    ],
)
def test_signals_at_random_times(
    number: int, times: int, count: int, line: tuple, whole: tuple, server: Server
) -> None:
    draws = random.Random(number + times)
    for _ in range(count):
        seconds = [draws.uniform(0, 0.25), draws.uniform(0, 0.03)][:times]
        struck_and_resumed(server, number, line, whole, seconds)


def test_a_requeued_run_comes_to_its_end(line: tuple, whole: tuple, server: Server) -> None:
    """The loop of docs/reliability.md restarts the run after a kill or a SIGTERM until it finishes."""
    draws, kinds = random.Random(7), []
    for n in range(100):
        seconds = draws.uniform(0.05, 0.15) + n / 8  # increasing, so that the run makes progress
        done = server.struck(draws.choice((TERM, signal.SIGKILL)), seconds, Path.cwd(), *line, "--resume")
        kinds.append(shell(done.status))
        assert kinds[-1] in (TERMINATED, 137, 0), done.err
        if not done.status:
            break
    assert kinds[-1] == 0
    for hidden in Path().rglob(".*"):  # left by kill -9; the next start removes it
        assert hidden.name == ".lock" or hidden.suffix == ".tmp"
    assert server.run(Path.cwd(), *line, "--resume").err == "already complete: models_save/nin.pth\n"
    assert taken() == whole


def started() -> list[int]:
    """Return the processes that the shell has started so far."""
    return [int(pid) for pid in Path("pids").read_text().split()] if Path("pids").exists() else []


LOOP = marked("requeue")[0].text.replace("sleep 1", ":")
REQUEUE = LOOP.replace("python -m prune.train -sr --resume", "{command} & echo $! >> pids; wait $!")


@pytest.mark.parametrize(
    ("statuses", "taken"),
    [
        ((0,), 1),
        ((137, 143, 137, 0, 137), 4),
        ((143, 2, 0), 2),
        ((INTERRUPTED, 0), 1),
        ((3, 0), 1),
        ((137, 6, 0), 2),
        ((141, 0), 1),
        ((143, 139, 0), 2),
    ],
)
def test_the_loop_goes_on_after_a_kill_alone(statuses: tuple[int, ...], taken: int, workplace: Path) -> None:
    """A wrong flag, a fault, a crash, a closed pipe or Ctrl-C ends the loop."""
    Path("left").write_text("".join(f"{status}\n" for status in statuses))
    command = "sh -c 'read s < left; sed -i 1d left; exit $s'"
    subprocess.run(["bash", "-c", REQUEUE.format(command=command)], check=True, timeout=60)
    assert len(started()) == taken


@pytest.mark.slow
@pytest.mark.parametrize("run", range(5))
def test_a_shell_that_requeues(run: int, line: tuple, whole: tuple) -> None:
    draws = random.Random(run)
    script = REQUEUE.format(command=shlex.join((sys.executable, "-m", *line, "--resume", "auto")))
    loop = subprocess.Popen(["bash", "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    for strike in range(1, 5):
        while loop.poll() is None and len(pids := started()) < strike:
            time.sleep(0.05)
        time.sleep(draws.uniform(0, 6))
        if loop.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it may have finished
                os.kill(pids[strike - 1], draws.choice((TERM, signal.SIGKILL)))
    err = loop.communicate(timeout=60)[1].decode()
    assert loop.returncode == 0
    assert "Traceback" not in err
    assert taken() == whole
