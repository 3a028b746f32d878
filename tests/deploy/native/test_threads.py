"""Threads of the native engine: any number that the system grants gives the same numbers, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from deploy.native import compiler
from deploy.native.executor import Native
from deploy.reference.run import run
from tests.deploy import layer_chains as chains
from tests.tools.house import ROOT

STARVED = """
import resource, torch
from deploy.native.executor import Native
from deploy.reference.run import run
from tests.deploy import layer_chains as chains

torch.set_num_threads(1)  # the stack of a thread that has ended would be taken again
made, x = chains.program(*chains.PROGRAMS["a pool behind a ReLU"]), chains.given()
native = Native(made)
expected = run(made, x)
assert torch.equal(native(x), expected)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, resource.RLIM_INFINITY))  # no stack of a thread fits
refused = False
try:
    import threading
    threading.Thread(target=int).start()
except RuntimeError:
    refused = True
torch.set_num_threads(4)
for count in (1, 5):
    assert torch.equal(native._run(x[:count], 4), expected[:count])
print("refused" if refused else "not refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_where_the_system_gives_no_thread_one_does_the_work(engine: compiler.Engine) -> None:
    done = subprocess.run([sys.executable, "-c", STARVED], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr[-1500:]


def _native() -> tuple[Native, torch.Tensor, torch.Tensor]:
    """Return an engine, pictures and their right answers."""
    made, x = chains.program(*chains.PROGRAMS["a pool behind a ReLU"]), chains.given()
    return Native(made), x, run(made, x)


def test_calls_of_any_number_of_threads_follow_each_other(engine: compiler.Engine) -> None:
    native, x, expected = _native()
    for threads in (3, 1, 2, 4, 2) * 20:
        for count in (1, 5):
            assert torch.equal(native._run(x[:count], threads), expected[:count])


def test_calls_at_the_same_time_do_not_meet(engine: compiler.Engine) -> None:
    right: list[bool] = []

    def call() -> None:
        native, x, expected = _native()
        right.extend(torch.equal(native._run(x[:1], 2), expected[:1]) for _ in range(50))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert right == [True] * 150
    assert not any(caller.is_alive() for caller in callers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_threads_of_its_own(engine: compiler.Engine) -> None:
    native, x, expected = _native()
    assert torch.equal(native._run(x[:1], 3), expected[:1])
    child = os.fork()
    if not child:
        code = 1
        try:
            threading.Timer(60, os._exit, (2,)).start()  # a child that waits for its parent's threads ends
            code = 0 if torch.equal(native._run(x[:1], 3), expected[:1]) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.equal(native._run(x[:1], 3), expected[:1])
