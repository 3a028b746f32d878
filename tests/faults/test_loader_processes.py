"""A stopped command does not wait for the pictures that its processes are reading, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from engine.checkpoint import archive
from engine.data.many_files import TOGETHER, each, loaded
from engine.errors import INTERRUPTED, TERMINATED
from tests.conftest import NARROW, SMALL
from tests.tools import folders

ROOT, SOON = Path(__file__).parents[2], 6.0
STOPPED_AT = 3

COMMAND = f"""
import os, sys, time
from pathlib import Path
from engine.data import stream
from engine.system.signals import Watch
from prune.train import main

calls, real, poll, polls = 0, stream.read_part, Watch.poll, 0

def slow(*arguments):  # each process reads two batches quickly, then one takes 8 seconds
    global calls
    calls += 1
    time.sleep(1 if calls > 16 else 0)
    return real(*arguments)

def stopped(watch, save):
    global polls
    polls += 1
    if polls == {STOPPED_AT}:
        time.sleep(0.5)  # both processes now read slow pictures
        Path("sent").write_text(str(time.time()))
        os.kill(os.getpid(), int(sys.argv[1]))
    poll(watch, save)

stream.read_part, Watch.poll = slow, stopped
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def pictures(workplace: Path) -> Path:
    """Return the working folder with pictures of two classes: six batches of 8."""
    folders.write(workplace / "pictures", {"train": 24, "val": 2}, "ab", 8)
    return workplace


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)])
def test_a_stopped_training_ends_soon(number: int, code: int, pictures: Path) -> None:
    flags = (*SMALL, "--cfg", NARROW, "--dataset", "imagefolder", "--data", "pictures", "--crop", "imagenet",
             "--image_size", "8", "--train_batch_size", "8", "--num_workers", "2")  # fmt: skip
    line = [sys.executable, "-c", COMMAND, str(int(number)), *flags]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        err = run.communicate(timeout=90)[1]
        ended = time.time()
        assert run.returncode == code, err
        assert ended - float(Path("sent").read_text()) < SOON
        with pytest.raises(ProcessLookupError):  # its group is empty
            os.killpg(run.pid, 0)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    (state,) = Path("runs").glob("*/state.pth")
    assert archive.load(state)[0]["step"] == STOPPED_AT


class Slow(Dataset):
    """Items of which all but the first batch take a second."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> int:
        time.sleep(index > 0)
        return index


def _slow(path: Path) -> str:
    time.sleep(int(path.name) >= TOGETHER)
    return path.name


def _batches() -> Iterator[object]:
    return loaded(Slow(), [[0], *([*range(1, 20)] for _ in range(4))], 2, False)


def _files() -> Iterator[object]:
    return each(_slow, [(Path(str(number)), 0) for number in range(4 * TOGETHER)], 2, "pictures")


@pytest.mark.parametrize("read", [_batches, _files])
def test_processes_end_when_nobody_reads_on(read) -> None:
    before = set(active_children())
    batches = read()
    next(batches)
    assert len(set(active_children()) - before) == 2
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < SOON
    assert set(active_children()) <= before
