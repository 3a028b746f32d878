"""Run a command: parse its flags, run it, report errors in two lines, return the right exit code.

This module does not import torch, so usage errors and --help appear at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine import errors
from engine.cli.flags import Parser, without
from engine.cli.machine import Threads
from engine.cli.naming import carrying
from engine.cli.options import Trains
from engine.errors import UserError
from engine.system import ranks, signals, terminal
from engine.system.device import keep_memory
from engine.system.packages import EXTRAS, install, install_core
from engine.system.signals import Stopped

_CORE = f"activate the environment that the toolkit is installed in (. .venv/bin/activate), or: {install_core()}"

INSTALL = {
    **{package: install(extra) for extra in ("report", "onnx") for package in EXTRAS[extra]},
    **dict.fromkeys(("torch", "torchvision", "numpy", "tqdm", "sklearn", "PIL"), _CORE),
}
"""The hint for each missing package."""

SILENT = 3
"""Seconds that every rank but the first waits before it prints an error."""

Body = Callable[[Any], dict[str, Any]]
"""A command's work: it takes the options of its parser and returns its result."""


def run(parser: Parser, body: Body, argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        body: does the work and returns its result: `text` to print, the `path` it wrote (the last line of
            stdout, so that commands chain in a shell), and further entries for --json.
    """
    with terminal.prepared(), _one_voice(), signals.stopping():
        return _run(parser, body, argv)


def _run(parser: Parser, body: Body, argv: Sequence[str] | None) -> int:
    work = signals.until_here() if argv is None else contextlib.nullcontext()
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = bool(os.environ.get("MC_DEBUG")) or "--debug" in argv
    try:
        with work:
            _work(parser, body, argv)
        return errors.OK
    except UserError as fault:
        if debug:
            traceback.print_exc()
        return _complain(str(fault), fault.hint, fault.code)
    except BrokenPipeError:
        return errors.PIPE_CLOSED
    except (KeyboardInterrupt, Stopped) as stop:
        with signals.ignoring():
            return _stopped(stop, (*parser.prog.split(), *argv), parser)
    except ModuleNotFoundError as fault:
        package = (fault.name or "").partition(".")[0]
        if package not in INSTALL:
            raise
        return _complain(f"{package} is not installed", INSTALL[package], errors.USAGE)
    except Exception as fault:
        if errors.no_memory(fault):
            return _complain("out of memory", _smaller(parser), errors.USAGE)
        if ranks.lost(fault):
            hint = (
                "read that process's error; torchrun --max-restarts N with --resume auto continues from the last save"
            )
            why = errors.first_line(fault)
            return _complain(
                f"another of the {ranks.started()} processes has ended or cannot be reached ({why})", hint, errors.LOST
            )
        raise


def _work(parser: Parser, body: Body, argv: Sequence[str]) -> None:
    options = parser.options_of(argv)
    keep_memory()
    if isinstance(options.machine, Threads) and options.machine.threads:
        import torch

        torch.set_num_threads(options.machine.threads)
    quiet = contextlib.redirect_stdout(sys.stderr) if options.machine.json else contextlib.nullcontext()
    if not parser.options.ranks:
        ranks.refuse(parser.prog)
    with carrying(options.flat()), quiet, _unwarned(options), signals.arriving(), ranks.joined(_device(options)):
        result = body(options)
    _print(result, options.machine.json)


def _device(options: Any) -> str:
    return getattr(options.machine, "device", "cpu")


@contextlib.contextmanager
def _unwarned(options: Any) -> Iterator[None]:
    """Silence the warnings of torch and torchvision under --quiet."""
    with warnings.catch_warnings():
        if getattr(options.machine, "quiet", False):
            warnings.filterwarnings("ignore", module="torch")
        yield


@contextlib.contextmanager
def _one_voice() -> Iterator[None]:
    """Silence every rank but the first."""
    if ranks.is_first():
        yield
        return
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        yield


def _smaller(parser: Parser) -> str:
    """Return the hint for taking less memory, with flags of this command."""
    remedies = {
        "--train_batch_size": "a smaller --train_batch_size",
        "--eval_batch_size": "a smaller --eval_batch_size",
        "--batch": "a smaller --batch",
        "--cpu": "--cpu",
    }
    found = [text for flag, text in remedies.items() if parser.has(flag)]
    return f"take {', or '.join(found)}" if found else "free some memory, or use a machine with more"


def _stopped(stop: BaseException, words: Sequence[str], parser: Parser) -> int:
    """Print the command to continue or restart, as it was given. Of many ranks, only the first prints it."""
    what, code = "interrupted", errors.INTERRUPTED
    if isinstance(stop, Stopped):
        what = f"stopped by {stop}" + (", everything up to here is saved" if stop.saved else "")
        code = errors.INTERRUPTED if stop.number == signal.SIGINT else errors.TERMINATED
    if not ranks.is_first():
        return code
    if issubclass(parser.options, Trains) and not any(word.startswith("--evaluate") for word in words):
        return _complain(what, f"continue with: {shlex.join((*without(words, '--resume'), '--resume'))}", code)
    return _complain(what, f"start again with: {shlex.join(words)}", code)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        shown = {k: v for k, v in result.items() if k != "text"}
        print(json.dumps(shown, indent=2, ensure_ascii=False, default=str))
    else:
        if text := result.get("text"):
            print(terminal.escape(text))
        if path := result.get("path"):
            terminal.print_path(path)
    sys.stdout.flush()


def _complain(what: str, hint: str, code: int) -> int:
    stream = sys.stderr
    if not ranks.is_first():  # if the first rank has the same error, torchrun ends this one meanwhile
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SILENT)
        stream = sys.__stderr__ or stream
    terminal.complain(what, hint, stream)
    return code
