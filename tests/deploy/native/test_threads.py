"""Threads of the native engine: any number that the system grants gives the same numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.native import compiler
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
