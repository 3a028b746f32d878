"""Side effects of other runtimes: signals still reach this process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.tools.house import ROOT

CODE = """
import faulthandler, gc, os, signal
faulthandler.enable()
from deploy.racing import runtimes
from tests.deploy.quantized import lowered, merged, pictures
program = lowered(merged("Residual", "int8"))
racing = [runtimes.openvino(program, compressed, 1, "it") for compressed in (False, True)]
for contender in racing:
    contender.run(pictures(1))
while racing:  # the first is the first to go
    contender = racing.pop(0)
    del contender
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_openvino_interrupts_and_does_not_crash() -> None:
    """Two deleted OpenVINO cores used to leave a signal stack in freed memory."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != -signal.SIGSEGV
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
