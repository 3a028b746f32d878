"""Signals: training saves at the current step and prints how to resume; no file is torn, and the exit status is right."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoint import archive, format as checkpoint
from engine.data import catalogue
from engine.data.image_folder import listed
from engine.errors import INTERRUPTED, TERMINATED
from engine.system import signals
from engine.system.signals import Stopped
from tests.conftest import NARROW
from tests.faults.conftest import taken
from tests.tools.children import ROOT, Server, in_child
from tests.tools.stops import BATCHES, EPOCHS, stop

TERM, INT, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
CATCHABLE = (TERM, INT, HUP, USR1)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear SIGHUP, which tests started by nohup ignore, and the commands with them."""
    before = signal.getsignal(HUP)
    if before == signal.SIG_IGN:
        signal.signal(HUP, signal.SIG_DFL)
    yield
    signal.signal(HUP, before)


def test_an_interrupt_after_another_signal_is_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    """The announced second Ctrl-C is respected after any other signal."""
    with signals.watching() as watch:
        for number in (TERM, INT):
            os.kill(os.getpid(), number)
        assert "a second interrupt ends at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), INT)
        with pytest.raises(Stopped, match="SIGTERM"):
            watch.poll(lambda: None)


@pytest.mark.parametrize(("number", "code"), [(TERM, TERMINATED), (HUP, TERMINATED), (INT, INTERRUPTED)])
def test_what_is_said(number: int, code: int, line: tuple, whole: tuple, command: Callable) -> None:
    """The printed command equals the given one, letter for letter, with --resume, and it works."""
    line = (*line, "--run_dir", "it's a run")
    for batch in (1, 8, 12, 13, 24):
        with stop(batch, number):
            done = command(*line, "--resume")
        assert done.code == code
        error, hint = [text for text in done.err.splitlines() if "afresh" not in text]
        assert error == f"error: stopped by {signal.Signals(number).name}, everything up to here is saved"
        words = shlex.split(hint.removeprefix("hint: continue with: "))
        assert words == ["python", "-m", *line, "--resume"]
        assert command(*words[2:]).code == 0
        assert Path("it's a run/metrics.csv").read_bytes() == whole[1]
        shutil.rmtree("it's a run")


def test_a_second_interrupt_ends_at_once(line: tuple, whole: tuple, command: Callable) -> None:
    with stop(8, INT, INT):
        done = command(*line)
    assert done.code == INTERRUPTED
    assert done.err.startswith("error: interrupted\nhint: continue with: ")
    assert archive.load(Path("runs/nin/state.pth"))[0]["step"] == 0  # the last save, of a whole epoch
    assert command(*line, "--resume").code == 0
    assert taken() == whole


def test_usr1_saves_and_goes_on(line: tuple, whole: tuple, command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.training.run_folder import RunFolder

    places, keep = [], RunFolder.keep

    def noting(self: RunFolder, progress: Any, fingerprint: Any) -> None:
        places.append((progress.epoch, progress.step))
        keep(self, progress, fingerprint)

    monkeypatch.setattr(RunFolder, "keep", noting)
    for batch in (1, 3, 4, 5, 6, 7, 12, 19, 23, 24):
        places.clear()
        with stop(batch, USR1):
            assert command(*line).code == 0
        epoch, place = divmod(batch - 1, BATCHES)
        saved = (epoch, min(place + 1, 4))
        assert places == sorted([*((n, 0) for n in range(1, EPOCHS + 1)), saved]), batch
        assert taken() == whole


def send(number: int, real: Callable) -> Callable:
    """Return a function that sends a signal on its first call and then works normally."""
    left = iter([number])

    def call(*arguments: Any, **more: Any) -> Any:
        for n in left:
            os.kill(os.getpid(), n)
        return real(*arguments, **more)

    return call


@pytest.mark.parametrize("place", ["the data are read", "a state is saved", "it is judged", "the file is written"])
@pytest.mark.parametrize("number", [TERM, HUP])
def test_a_signal_while(
    place: str, number: int, line: tuple, whole: tuple, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "it is judged":  # for the last time
        patch: Any = stop(EPOCHS * BATCHES + 1, number)
    else:
        patch = monkeypatch.context()
    with patch as attributes:
        if place == "the data are read":  # or downloaded
            attributes.setattr(catalogue, "load", send(number, catalogue.load))
        elif place == "a state is saved":
            attributes.setattr(os, "link", send(number, os.link))  # the second call: the first has no old file to keep
        elif place == "the file is written":
            attributes.setattr(checkpoint, "save", lambda *a: killed_in_replace(number, *a))
        done = command(*line)
    assert done.code == TERMINATED
    assert f"error: stopped by {signal.Signals(number).name}" in done.err
    assert done.err.splitlines()[-1].endswith(" --resume")
    assert not Path("models_save/nin.pth").exists()
    assert not list(Path().rglob("*.tmp"))
    assert ("saved" in done.err) is (place == "a state is saved")
    assert command(*line, "--resume").code == 0
    assert taken() == whole


def killed_in_replace(number: int, *arguments: Any) -> None:
    real = archive.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", send(number, os.replace))
        real(*arguments)


@pytest.mark.parametrize("number", [HUP, INT])
def test_what_the_parent_ignores_stays_ignored(number: int, line: tuple, server: Server) -> None:
    """nohup ignores SIGHUP; a shell ignores SIGINT for background jobs."""
    pid = server.start(Path.cwd(), *line, ignore=(number,))
    for _ in range(8):
        time.sleep(0.03)
        os.kill(pid, number)
    done = server.wait(pid)
    assert (done.status, done.err) == (0, "")


def test_a_terminal_that_hangs_up(line: tuple, whole: tuple, command: Callable) -> None:
    """After SIGHUP nothing can be printed."""
    pid, terminal = pty.fork()
    if not pid:
        words = [word for word in map(str, line) if word != "--quiet"]
        os.execve(
            sys.executable,
            [sys.executable, "-m", *words],
            {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
    until = time.monotonic() + 120
    while not Path("runs/nin/state.pth").exists():
        assert time.monotonic() < until, os.read(terminal, 10_000).decode()
        time.sleep(0.001)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == TERMINATED
    assert command(*line, "--resume").code == 0
    assert taken() == whole


def test_other_commands_stop_at_once(refined: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "save", send(TERM, checkpoint.save))
    line = ("prune.normal_regular", "--percent", "0.5", "--cpu", "--save", "out.pth")
    done = refined(*line)
    assert done.code == TERMINATED
    assert done.err.splitlines()[-2:] == [
        "error: stopped by SIGTERM", f"hint: start again with: python -m {' '.join(line)}",
    ]  # fmt: skip
    assert not Path("out.pth").exists()


ENDING = """
import atexit, os, sys
atexit.register(os.kill, os.getpid(), {number})
from scripts import summary
sys.exit(summary.main())
"""


@pytest.mark.parametrize("number", [TERM, INT, HUP])
@pytest.mark.parametrize(("argv", "code"), [(("--help",), 0), (("--cfg", "8,0"), 2), (("--cfg", NARROW), 0)])
def test_a_signal_after_the_last_line_changes_nothing(
    argv: tuple[str, ...], code: int, number: int, tmp_path: Path
) -> None:
    """The interpreter takes a while to end: its exit status is settled, and no traceback follows."""
    line = [sys.executable, "-c", ENDING.format(number=int(number)), *argv]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 2 if code else 0), done.stderr


def test_handlers_are_put_back(line: tuple, command: Callable) -> None:
    before = [signal.getsignal(n) for n in CATCHABLE]
    inside = []
    with signals.stopping():
        inside.append([signal.getsignal(n) for n in CATCHABLE])
        with signals.watching():
            inside.append([signal.getsignal(n) for n in CATCHABLE])
    assert inside[0] != before
    assert all(one != other for one, other in zip(*inside, strict=True))
    assert [signal.getsignal(n) for n in CATCHABLE] == before
    with stop(3):
        assert command(*line).code == TERMINATED
    assert [signal.getsignal(n) for n in CATCHABLE] == before


def test_other_threads_train_without_handlers() -> None:
    seen: list[Any] = []

    def body() -> None:
        with signals.stopping(), signals.watching() as watch:
            watch.poll(lambda: seen.append("saved"))
            seen.append(signal.getsignal(TERM))

    thread = threading.Thread(target=body)
    before = signal.getsignal(TERM)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_signal_after_the_last_poll_counts() -> None:
    with pytest.raises(Stopped) as stopped, signals.watching():
        os.kill(os.getpid(), TERM)
    assert (stopped.value.number, stopped.value.saved) == (TERM, True)


def test_usr1_after_term_does_not_hide_it() -> None:
    with signals.watching() as watch:
        for number in (TERM, USR1, HUP):
            os.kill(os.getpid(), number)
        with pytest.raises(Stopped, match="SIGTERM"):
            watch.poll(lambda: None)


def _stream(pictures: Path) -> None:
    """In its own process group, send a signal to all processes, loaders included, as a terminal does."""
    import torch

    from engine.data import stream
    from engine.tasks.classification import CLASSIFICATION
    from engine.training.loop import fit
    from tests.tools import training

    os.setpgid(0, 0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    data = stream.load(listed(pictures), torch.device("cpu"), 6, 0, workers=2)
    states: list[dict] = []
    with signals.watching() as watch:

        def step(progress: Any) -> None:
            if progress.step == 2:
                if not (sender := os.fork()):  # loader processes follow their parent, so another process sends it
                    os.killpg(0, TERM)
                    os._exit(0)
                os.waitpid(sender, 0)
                time.sleep(0.2)  # time for loader processes to die, if they are not protected
            watch.poll(lambda: states.append(progress.state_dict()))

        try:
            fit(training.network(), data, training.config(), CLASSIFICATION, after_step=step)
        except Stopped:
            os._exit(42 if states[0]["step"] == 2 else 1)


def test_loader_processes_leave_signals_to_their_parent(pictures: Path) -> None:
    assert in_child(lambda: _stream(pictures)) == 42
