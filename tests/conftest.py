"""Shared by the tests: commands run in this process, in an empty folder, on few small pictures."""

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
from engine.data.info import Read
from engine.errors import BAD_CHECKPOINT, UserError
from engine.training.run_folder import RunFolder
from models.graph.capture import cache

pytest.register_assert_rewrite("tests.tools")  # their asserts, too, say what they compared

NARROW = "8,8,8,8,8,8,8,8"
SMALL = (
    "--dataset", "digits", "--image_size", "8", "--epochs", "1", "--train_batch_size", "128",
    "--quiet", "--cpu", "--precision", "fp32",
)  # fmt: skip
"""Flags that make any training command take about half a second: 12 steps."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # networks this small only wait for each other on two


@pytest.fixture(scope="session", autouse=True)
def _autograd_without_threads() -> None:
    """Let autograd start before any capture: after one it would start threads, and forks could not train."""
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(scope="session", autouse=True)
def _digits_are_read_once() -> Iterator[None]:
    """From scikit-learn's file of text, which takes longer than to train on them for an epoch of few steps."""
    read = catalogue.READERS["digits"]

    def once(root: Path, image_size: int | None) -> Read:
        from sklearn import datasets
        from sklearn.datasets._base import load_digits

        if datasets.load_digits is load_digits:  # not yet, and no test has others in its place
            known = load_digits()
            datasets.load_digits = lambda: copy.deepcopy(known)
        return read(root, image_size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.READERS, "digits", once)
        yield


@pytest.fixture(autouse=True)
def _signals_can_be_handled() -> Iterator[None]:
    """Also after a test that has run OpenVINO; else the next one to fork, or to be interrupted, would end this process."""
    from tests.tools import signal_stack  # not before its asserts are rewritten

    with signal_stack.kept():
        yield


@pytest.fixture(autouse=True)
def _forget_projects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules of a test's own project: the next test's may have the same names (`plain.py`, `net.py`)."""
    yield
    temporary = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(temporary):
            del sys.modules[name]
            cache.forget()
    importlib.invalidate_caches()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: models_save/ and runs/ appear here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SimpleNamespace]:
    """Run `python -m MODULE ARGS` in this process; gives code, out, err and the last line of stdout as `path`."""
    monkeypatch.setattr(RunFolder, "draw", lambda *_: None)  # longer than such a run; test_run_folder draws

    def call(module: str, *args: object) -> SimpleNamespace:
        capsys.readouterr()
        code = importlib.import_module(module).main([str(a) for a in args])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, path=(out.strip().splitlines() or [""])[-1])

    return call


LONGER = (*SMALL, "--train_batch_size", "32")  # 45 steps: surer of its answers, for those who compare them
CHAIN = (
    ("prune.train", "-sr", "--cfg", NARROW, *LONGER),
    ("prune.normal_regular", "--percent", "0.3", "--cpu"),
    ("prune.train", "--refine", *LONGER),
)


def run_stages(place: Path, stages: Iterable[Sequence[str]]) -> Path:
    """Run commands one after the other in a folder, without a word; gives the folder."""
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
    """The folder where train, prune and refine have run once, with default paths."""
    return run_stages(tmp_path_factory.mktemp("chain"), CHAIN)


@pytest.fixture
def refined(command: Callable[..., SimpleNamespace], workplace: Path, _chain: Path) -> Callable[..., SimpleNamespace]:
    """`command` in a folder whose models_save/ holds nin_preprune.pth, nin_prune.pth and nin_refine.pth."""
    shutil.copytree(_chain / "models_save", workplace / "models_save")
    return command


def assert_refused(result: SimpleNamespace, code: int, *words: str) -> None:
    """Nothing on stdout, one `error:` line with these words and one `hint:` line on stderr."""
    assert (result.code, result.out) == (code, "")
    error, hint = result.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    for word in words:
        assert word in error


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> None:
    """A shell without job control starts what is in its background deaf to Ctrl-C; what tests start must hear it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def refused(path: Path, *words: str, read: Callable[[Path], object] = checkpoint.load) -> UserError:
    """The fault of a file, by default a checkpoint, that `read` refuses with exit 3, a hint, and these words beside its path."""
    with pytest.raises(UserError) as fault:
        read(path)
    assert fault.value.code == BAD_CHECKPOINT
    assert fault.value.hint
    for word in (str(path), *words):
        assert word in str(fault.value)
    return fault.value
