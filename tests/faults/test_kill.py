"""kill -9 at random moments: the next run resumes and ends with the same bytes as an uninterrupted run."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoint import archive
from tests.tools.children import Server
from tests.tools.equality import same
from tests.tools.stops import MODES

FILES = ("out.pth", "state.pth", "state.prev.pth", "metrics.csv", "flags.json", "versions.json", "result.json")


def outcome(where: Path) -> tuple[bytes, bytes, Any]:
    """Return the output file, the metrics, and the last state with all its tensors."""
    assert not [path for path in where.rglob(".*") if path.is_file()]  # no temporary file is left at the end
    return (
        (where / "out.pth").read_bytes(),
        (where / "run/metrics.csv").read_bytes(),
        archive.load(where / "run/state.pth")[0],
    )


def leftovers(where: Path) -> None:
    """Check that at most one temporary file is left for each file, however often the run was killed."""
    names = [path.name for path in where.rglob("*.tmp")]
    assert all(sum(name.startswith(f".{file}.") for name in names) <= 1 for file in FILES), names


def train(server: Server, where: Path, line: Sequence[str]) -> tuple[Any, float]:
    """Return the outcome of the uninterrupted run, and its seconds."""
    server.run(where, *line)  # warm-up: the first run pays for imports
    shutil.rmtree(where / "run")
    started = time.monotonic()
    assert server.run(where, *line).status == 0
    seconds = time.monotonic() - started
    found = outcome(where)
    forget(where)
    return found, seconds


def forget(where: Path) -> None:
    shutil.rmtree(where / "run", ignore_errors=True)
    (where / "out.pth").unlink(missing_ok=True)


def kill_until(count: int, server: Server, where: Path, line: Sequence[str], seed: int) -> tuple[int, int]:
    """Kill and resume runs `count` times; compare each finished run. Return the numbers of kills and of finished runs."""
    whole, seconds = train(server, where, line)
    draws, kills, ends = random.Random(seed), 0, 0
    while kills < count or (where / "run").exists():
        if kills < count:
            done = server.struck(signal.SIGKILL, draws.uniform(0, 1.1 * seconds), where, *line, "--resume")
        else:
            done = server.run(where, *line, "--resume")
        assert done.status in (0, -signal.SIGKILL), done.err
        leftovers(where)
        if done.status:
            kills += 1
        else:
            assert same(outcome(where), whole)
            ends += 1
            forget(where)
    return kills, ends


def test_five_kills(server: Server, workplace: Path, flags: tuple[str, ...]) -> None:
    """Five runs are killed once each, at a random moment in a different fifth; each is resumed to its end and compared."""
    line = (*MODES["sparse"], *flags, "--save", "out.pth", "--run_dir", "run")
    whole, seconds = train(server, workplace, line)
    draws = random.Random(11)
    for fifth in range(5):
        while not server.struck(signal.SIGKILL, draws.uniform(fifth, fifth + 1) / 5 * seconds, workplace, *line).status:
            forget(workplace)  # it finished sooner than the first run
        leftovers(workplace)
        saved = any((workplace / "run").glob("state*.pth"))
        done = server.run(workplace, *line, "--resume")
        assert done.status == 0, done.err
        assert ("starting afresh" in done.err) is not saved
        assert same(outcome(workplace), whole)
        forget(workplace)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_two_hundred_kills(mode: str, server: Server, workplace: Path, flags: tuple[str, ...]) -> None:
    """29 kills in each of the seven modes are 203."""
    if mode == "refine":
        server.run(workplace, *MODES["sparse"], *flags, "--save", "sparse.pth")
        pruned = server.run(workplace, "prune.normal_regular", "--percent", "0.3", "--model", "sparse.pth", "--save",
                            "pruned.pth", "--data", flags[3], "--cpu")  # fmt: skip
        assert pruned.status == 0, pruned.err
    line = (*MODES[mode], *flags, "--save", "out.pth", "--run_dir", "run")
    kills, ends = kill_until(29, server, workplace, line, seed=len(mode))
    print(f"{mode}: {kills} kills, {ends} runs to the end")
    assert ends >= 1
