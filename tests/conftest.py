"""Fixtures for all tests: run commands in this process, in an empty folder, on few small pictures."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.checkpoint import format as checkpoint
from engine.data import catalogue
from engine.data.info import Parts
from engine.errors import BAD_CHECKPOINT, UserError
from engine.training.run_folder import RunFolder
from models.graph.capture import cache

pytest.register_assert_rewrite("tests.tools")  # so that their asserts show the compared values

NARROW = "8,8,8,8,8,8,8,8"
SMALL = (
    "--dataset", "digits", "--image_size", "8", "--epochs", "1", "--train_batch_size", "128",
    "--quiet", "--cpu", "--precision", "fp32",
)  # fmt: skip
"""Flags that make any training command take about half a second: 12 steps."""
JUDGING = ("--dataset", "digits", "--image_size", "8", "--quiet", "--cpu")
"""Flags for --evaluate, which takes none of training."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # with two threads, networks this small are slower


@pytest.fixture(scope="session", autouse=True)
def _autograd_without_threads() -> None:
    """Start autograd before any capture: after a capture it would start threads, and forks could not train."""
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(scope="session", autouse=True)
def _digits_are_read_once() -> Iterator[None]:
    """Read the digits once: parsing scikit-learn's text file takes longer than an epoch of few steps."""
    read = catalogue.READERS["digits"]

    def once(root: Path, image_size: int | None) -> Parts:
        from sklearn import datasets
        from sklearn.datasets._base import load_digits

        if datasets.load_digits is load_digits:  # not replaced already, by this fixture or by a test
            known = load_digits()
            datasets.load_digits = lambda: copy.deepcopy(known)
        return read(root, image_size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.READERS, "digits", once)
        yield


@pytest.fixture(autouse=True)
def _signals_can_be_handled() -> Iterator[None]:
    """Restore the signal stack after a test that has run OpenVINO; a later fork or interrupt would end this process."""
    from tests.tools import signal_stack  # imported after register_assert_rewrite

    with signal_stack.kept():
        yield


@pytest.fixture(autouse=True)
def _forget_projects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules of a test's own project, because the next test's may have the same names (`plain.py`, `net.py`)."""
    yield
    temporary = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(temporary):
            del sys.modules[name]
            cache.forget()
    importlib.invalidate_caches()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder, in which models_save/ and runs/ appear."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SimpleNamespace]:
    """Return a function that runs `python -m MODULE ARGS` in this process.

    Its result has the exit code, stdout, stderr and, as `path`, the last line of stdout.
    """
    from tests.tools import hints  # imported after register_assert_rewrite

    monkeypatch.setattr(RunFolder, "draw", lambda *_: None)  # drawing takes longer than the run; test_run_folder draws

    def call(module: str, *args: object) -> SimpleNamespace:
        capsys.readouterr()
        code = importlib.import_module(module).main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert not hints.of_no_command(module, err)
        return SimpleNamespace(code=code, out=out, err=err, path=(out.strip().splitlines() or [""])[-1])

    return call


LONGER = (*SMALL, "--train_batch_size", "32")  # 45 steps: clearer answers, for tests that compare them
CHAIN = (
    ("prune.train", "-sr", "--cfg", NARROW, *LONGER),
    ("prune.normal_regular", "--percent", "0.3", "--cpu"),
    ("prune.train", "--refine", *LONGER),
)


def run_stages(place: Path, stages: Iterable[Sequence[str]]) -> Path:
    """Run commands one after the other in a folder without output; return the folder."""
    torch.set_num_threads(1)
    before = Path.cwd()
    os.chdir(place)
    try:
        for module, *args in stages:
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as err:
                patch.setattr(RunFolder, "draw", lambda *_: None)
                with contextlib.redirect_stdout(io.StringIO()):
                    code = importlib.import_module(module).main(args)
            assert code == 0, err.getvalue()
    finally:
        os.chdir(before)
    return place


@pytest.fixture(scope="session")
def _chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run train, prune and refine once with default paths and return the folder."""
    return run_stages(tmp_path_factory.mktemp("chain"), CHAIN)


@pytest.fixture
def refined(command: Callable[..., SimpleNamespace], workplace: Path, _chain: Path) -> Callable[..., SimpleNamespace]:
    """Return `command` in a folder whose models_save/ holds nin_preprune.pth, nin_prune.pth and nin_refine.pth."""
    shutil.copytree(_chain / "models_save", workplace / "models_save")
    return command


def assert_refused(result: SimpleNamespace, code: int, *words: str) -> None:
    """Check that stdout is empty, and that stderr is one `error:` line with these words and one `hint:` line."""
    assert (result.code, result.out) == (code, "")
    error, hint = result.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    for word in words:
        assert word in error


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> None:
    """Restore SIGINT's handler: a shell without job control starts background jobs that ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def refused(path: Path, *words: str, read: Callable[[Path], object] = checkpoint.load) -> UserError:
    """Check that `read` refuses a file with exit 3, a hint, its path and these words; return the error."""
    with pytest.raises(UserError) as fault:
        read(path)
    assert fault.value.code == BAD_CHECKPOINT
    assert fault.value.hint
    for word in (str(path), *words):
        assert word in str(fault.value)
    return fault.value
