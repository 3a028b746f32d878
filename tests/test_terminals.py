"""Streams that are not a terminal or are closed: no escape codes, no lost training, no tracebacks, intact paths."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.system import terminal
from scripts import chain
from tests.conftest import NARROW, SMALL
from tests.tools.house import ROOT, sources

Command = Callable[..., SimpleNamespace]
LOUD = tuple(flag for flag in SMALL if flag != "--quiet")
TRAIN = ("prune.train", "--cfg", NARROW, *LOUD)


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, command: Command, name: str) -> str:
    """Return a training's output on a terminal whose TERM is `name`."""
    monkeypatch.setenv("TERM", name)
    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        assert importlib.import_module("prune.train").main([*TRAIN[1:], "--save", f"{name}.pth"]) == 0
    return screen.getvalue()


def test_a_bar_moves_on_a_terminal_and_nowhere_else(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\r" in shown(monkeypatch, command, "xterm")
    for text in (shown(monkeypatch, command, "dumb"), command(*TRAIN, "--save", "piped.pth").err):
        assert "\r" not in text
        assert "\x1b" not in text
        assert [line.split()[0] for line in text.splitlines()] == ["digits:", "epoch"]


def test_colours_of_others_and_line_breaks_do_not_reach_an_error_line() -> None:
    assert terminal.one_line("\x1b[1mdo those\x1b[0m\n  steps\t\x07now") == r"do those steps \x07now"
    assert terminal.one_line("模型 a.pth") == "模型 a.pth"


def run(module: str, *argv: str, **more: object) -> subprocess.CompletedProcess:
    """Run a command in its own process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run([sys.executable, "-m", module, *argv], env=environment, check=False, **more)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "env",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_what_an_encoding_lacks_is_escaped(env: dict[str, str], tmp_path: Path) -> None:
    done = run("prune.train", "--lr", "模", cwd=tmp_path, capture_output=True, env=env)
    assert done.returncode == 2
    assert done.stderr.decode("utf-8").splitlines()[0] in (
        f"error: argument --lr: '{text}' is not a number above 0 and at most 1e+30"
        for text in ("模", r"\u6a21", r"\udce6\udca8\udca1")
    )


def test_no_colours_where_nobody_wants_them(tmp_path: Path) -> None:
    """NO_COLOR, a dumb terminal and a pipe disable colours of --help, which some argparse versions colour, and of errors."""
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "", "CI": "1"}):
        for argv, code in ((("--help",), 0), (("--lr", "x"), 2)):
            done = run("prune.train", *argv, cwd=tmp_path, capture_output=True, env=env)
            assert done.returncode == code
            assert not {b"\x1b", b"\r"} & {bytes([byte]) for byte in done.stdout + done.stderr}


def closed_pipe() -> int:
    """Return the write end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def unread() -> io.TextIOWrapper:
    """Return a stream into a pipe without a reader."""
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(closed_pipe(), "w")), "utf-8", line_buffering=True)


def test_help_into_a_closed_pipe_is_exit_141_and_silence(tmp_path: Path) -> None:
    for module in ("prune.train", "scripts.summary"):
        done = run(module, "--help", cwd=tmp_path, stdout=closed_pipe(), stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_result_into_a_closed_pipe_is_exit_141_and_silence(
    more: tuple[str, ...], command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", unread())
        assert importlib.import_module("scripts.summary").main(["--cfg", NARROW, *more]) == 141
        sys.stdout.close()  # flushes
    assert capsys.readouterr() == ("", "")


def test_a_command_inside_another_ends_with_the_pipe(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """scripts.quickstart calls other commands: `| head -1` ends it as quietly as each of them."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", unread())
        with pytest.raises(BrokenPipeError):
            chain.call(f"scripts.summary --cfg {NARROW}")
        sys.stdout.close()


FULL = "error: cannot write to stdout: No space left on device\nhint: free some space, or send the output to another place\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("argv", [("--help",), ("--cfg", NARROW), ("--cfg", NARROW, "--json")])
def test_stdout_on_a_full_disk_is_exit_6(argv: tuple[str, ...], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run("scripts.summary", *argv, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.decode()) == (6, FULL)


def test_training_goes_on_when_nobody_reads_its_progress(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", unread())
        assert importlib.import_module("prune.train").main(list(TRAIN[1:])) == 0
        sys.stderr.close()
    assert capsys.readouterr().out.splitlines()[-1] == "models_save/nin.pth"
    assert Path("models_save/nin.pth").is_file()


def test_streams_that_were_never_there(tmp_path: Path) -> None:
    """With a shell's `2>&-` and `>&-`, errors must not appear on stdout or in the next opened file."""
    for closed, argv, code in (("2>&-", "--lr x", 2), (">&- 2>&-", "--lr x", 2), (">&-", "--help", 0)):
        line = ["sh", "-c", f'exec "$0" -m prune.train {argv} {closed}', sys.executable]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_streams_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with terminal.prepared():
        assert sys.stderr is not before[1]
        print("told", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().err == "told\n"


@pytest.mark.parametrize("name", ["模型.pth", "\udcff.pth", "a b.pth"])
def test_a_path_is_printed_as_the_file_system_has_it(
    name: str, refined: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for an ASCII stream, too, as the next command of a pipeline opens the printed path."""
    raw = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
        assert importlib.import_module("prune.train").main(["--refine", "--save", name, *SMALL]) == 0
        sys.stdout.flush()
        assert os.fsdecode(raw.getvalue().splitlines()[-1]) == name
    assert os.path.isfile(name)
    flags = Path("runs", Path(name).stem, "flags.json").read_text()
    assert json.loads(flags)["flags"]["save"] == name


def test_text_on_a_stream_that_lacks_its_letters_is_escaped(refined: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
        assert importlib.import_module("prune.normal_regular").main(["--save", "模.pth", "--cpu"]) == 0
        sys.stdout.flush()
        *_, text, path = raw.getvalue().splitlines()
    assert text.endswith(rb"next: python -m prune.train --refine '\u6a21.pth'")
    assert path == os.fsencode("模.pth")


BLOCKED = """
import importlib, sys
sys.modules.update(dict.fromkeys(("matplotlib", "onnx", "onnxruntime", "openvino", "tensorboard", "hypothesis", "pytest")))
for module, *argv in (("prune.train", *sys.argv[1:]), ("scripts.report", "models_save/nin.pth")):
    assert importlib.import_module(module).main(argv) == 0
"""


def test_the_core_works_without_what_is_optional(tmp_path: Path) -> None:
    """Train, then report: the plot is missing, and a notice gives the exact command to install its package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", BLOCKED, *TRAIN[1:]]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "notice: no picture without matplotlib: pip install matplotlib bokeh"
    assert not list(tmp_path.rglob("*.png"))


IMPORTING = """
import importlib, os, sys, time
import PIL.Image, numpy, sklearn.datasets, torch, torchvision, tqdm  # theirs are their own
touched = []
def watch(event, args):
    if event == "open" and (set(str(args[1])) & set("wax+") or args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        touched.append((event, args[0]))
    if event.split(".")[0] in ("socket", "subprocess", "os", "shutil", "tempfile") and event not in ("os.listdir", "os.scandir"):
        touched.append((event, args))
light = {"engine", "quant", "prune", "bn_merge", "scripts"}
started = time.process_time()
for name in light:
    importlib.import_module(name)
spent = time.process_time() - started
state, threads = torch.get_rng_state(), torch.get_num_threads()
before = dict(os.environ)
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not touched, touched
assert dict(os.environ) == before
assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
assert not os.listdir(), os.listdir()
assert spent < 0.05, spent
assert threads == 1, threads
"""


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    """Importing a module changes nothing.

    It writes no file, opens no socket, starts no process, draws no random number, and changes no setting, OMP_NUM_THREADS included.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", IMPORTING, *sources()], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_what_a_library_prints_on_stdout_goes_to_stderr() -> None:
    """Python's own stdout keeps text of a pipe back, and must not write it behind the redirection."""
    code = (
        "import os; from engine.system.terminal import stdout_to_stderr\n"
        "print('before')\n"
        "with stdout_to_stderr(): print('inside'); os.write(1, b'below\\n')\n"
        "print('after')"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert {*done.stderr.splitlines()} == {"inside", "below"}
