"""The frame around every command: parse, run, report faults in two lines, leave with the right exit code.

Needs no torch itself, so usage errors and --help answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from engine import errors
from engine.device import keep_memory
from engine.errors import UserError
from engine.flags import Parser

Body = Callable[[argparse.Namespace], dict[str, Any]]


def command(parser: Parser, body: Body, argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        body: does the work and returns its result: `text` to print, `path` written (the last line of
            stdout, so that commands chain in a shell), and whatever else --json should show.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal in the C locale
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = bool(os.environ.get("MC_DEBUG")) or "--debug" in argv
    try:
        args = parser.parse_args(argv)
        args.command = (*parser.prog.split(), *argv)
        _check(args)
        keep_memory()
        if threads := getattr(args, "threads", None):
            import torch

            torch.set_num_threads(threads)
        as_json = getattr(args, "json", False)
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = body(args)
        _print(result, as_json)
        return errors.OK
    except UserError as fault:
        if debug:
            traceback.print_exc()
        return _complain(str(fault), fault.hint, fault.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush to
        return errors.PIPE_CLOSED
    except KeyboardInterrupt:
        return _complain(
            "interrupted", "a training run goes on from its last whole epoch with --resume", errors.INTERRUPTED
        )
    except ModuleNotFoundError as fault:
        extra = {"matplotlib": "report", "onnx": "onnx", "onnxruntime": "onnx"}.get(fault.name or "")
        if not extra:
            raise
        return _complain(f"{fault.name} is not installed", f"pip install '.[{extra}]'", errors.USAGE)
    except Exception as fault:
        if isinstance(fault, MemoryError) or any(w in str(fault).lower() for w in ("out of memory", "allocate memory")):
            return _complain("out of memory", "take a smaller --train_batch_size, or --cpu", errors.USAGE)
        raise


def _check(args: argparse.Namespace) -> None:
    """What flags say of each other."""
    if getattr(args, "cpu", False):
        if args.device == "cuda":
            raise UserError("--cpu contradicts --device cuda", "give one of them")
        args.device = "cpu"
    if getattr(args, "type", None) is not None:
        arch = ("nin", "nin_gc", "separable")[args.type]
        if args.arch not in (None, arch):
            raise UserError(f"--type {args.type} means {arch}, --arch says {args.arch}", "give one of them")
        args.arch = arch


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        shown = {k: v for k, v in result.items() if k != "text"}
        print(json.dumps(shown, indent=2, ensure_ascii=False, default=str))
    else:
        if text := result.get("text"):
            print(text)
        if path := result.get("path"):
            print(path)
    sys.stdout.flush()


def _complain(what: str, hint: str, code: int) -> int:
    what, hint = (" ".join(text.split()) for text in (what, hint))  # one line each
    print(f"error: {what}\nhint: {hint}", file=sys.stderr)
    return code
