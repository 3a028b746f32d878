"""Malicious files: payloads in every container, damaged archives, and child processes to open them in."""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import json
import os
import pathlib
import pickle
import resource
import runpy
import shutil
import struct
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Train
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from models import forms

INFO = DataInfo("digits", "digits", 10, 8, (0.5,) * 3, (0.25,) * 3)


def tiny(arch: str = "slimming", cfg: tuple[int, ...] = (2, 2, 2)) -> dict[str, Any]:
    """Return the content of a complete checkpoint of a few kilobytes."""
    torch.manual_seed(0)
    network = forms.build(arch, list(cfg), side=INFO.image_size)
    metrics, stages = Metrics(12.5, pictures=360, judged_on="test"), (Train(epochs=1),)
    more = {"classes": 10, **network.arch_args}
    return checkpoint.make(network, arch, more, INFO, metrics, stages, Origin(("prune.train",), 1)).to_dict()


class Call:
    """An object that pickles as a function call: unpickling it by plain pickle calls the function."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.function, self.args


def payloads(folder: Path) -> dict[str, Call]:
    """Return twelve ways to create `folder/sentinel`, by the name of the called function."""
    sentinel, script = folder / "sentinel", folder / "hubconf.py"
    script.write_text(f"open({str(sentinel)!r}, 'w')\ndef net(): return 1\n")
    text, touch = f"open({str(sentinel)!r}, 'w')", f"touch {sentinel}"
    inner = pickle.dumps(Call(os.mkdir, str(sentinel)), protocol=2)
    return {
        "os.system": Call(os.system, touch),
        "os.mkdir": Call(os.mkdir, str(sentinel)),
        "eval": Call(builtins.eval, text),
        "exec": Call(builtins.exec, text),
        "open": Call(builtins.open, str(sentinel), "w"),
        "Popen": Call(subprocess.check_call, ["touch", str(sentinel)]),
        "torch.hub": Call(functools.partial(torch.hub.load, str(folder), "net", source="local", verbose=False)),
        "partial": Call(functools.partial(os.mkdir, str(sentinel))),
        "runpy": Call(runpy.run_path, str(script)),
        "copy": Call(shutil.copyfile, str(script), str(sentinel)),
        "pickle": Call(pickle.loads, inner),
        "Path": Call(pathlib.Path.touch, sentinel),
    }


PLACES = ("cfg", "state_dict", "best_acc", "optimizer", "rng", "transforms")
CONTAINERS = ("zip", "legacy", "pickle")


def hidden(content: dict[str, Any], place: str, evil: Any) -> dict[str, Any]:
    """Return a copy of a checkpoint with a payload in one of its fields."""
    if place == "state_dict":
        return {**content, place: {**content[place], "evil": evil}}
    if place in ("cfg", "transforms"):
        return {**content, place: [*content[place], evil]}
    return {**content, place: evil}


def packed(value: Any, container: str, protocol: int = 2) -> bytes:
    """Return a value as torch writes it today, as torch before 1.6 wrote it, or as a bare pickle."""
    if container == "pickle":
        return pickle.dumps(value, protocol=protocol)
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=container == "zip")
    return buffer.getvalue()


def rezipped(
    whole: bytes, change: Callable[[str, bytes], bytes] = lambda name, data: data, kind: int = zipfile.ZIP_STORED
) -> bytes:
    """Return an archive with changed members and matching checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w", kind) as new:
        for member in old.infolist():
            new.writestr(zipfile.ZipInfo(member.filename), change(member.filename, old.read(member)), kind)
    return buffer.getvalue()


def two_archives(shown: bytes, loaded: bytes) -> bytes:
    """Return one file with two directories: zipfile reads `shown`, a reader that trusts the written offset reads `loaded`.

    Both archives are small ones made by `rezipped`, with directories of the same length.
    """
    last = struct.Struct("<4s4H2IH")  # end record: ..., length and offset of the directory, length of the comment
    parts = []
    for raw in (loaded, shown):
        *begin, length, place, comment = last.unpack(raw[-last.size :])
        parts.append((raw[:place], bytearray(raw[place : place + length]), begin, place, comment))
    (true, its_directory, _, place, _), (other, directory, begin, _, comment) = parts
    assert len(directory) == len(its_directory)
    at, shift = 0, place - len(other)  # zipfile adds len(true + its_directory + other) - place to every offset it reads
    while at < len(directory):
        name, extra, words = struct.unpack_from("<3H", directory, at + 28)
        (start,) = struct.unpack_from("<I", directory, at + 42)
        struct.pack_into("<I", directory, at + 42, start + shift)
        at += 46 + name + extra + words
    return true + its_directory + other + directory + last.pack(*begin, len(directory), place, comment)


def from_memo(function: str, argument: str) -> bytes:
    """Return a pickle that calls e.g. "os.system", although the last strings before STACK_GLOBAL are harmless."""
    known = [*function.split("."), "torch", "Size"]
    stored = b"".join(_text(word) + b"q" + bytes([number]) + b"0" for number, word in enumerate(known))
    return b"\x80\x04" + stored + b"h\0h\1\x93(" + _text(argument) + b"tR."


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def in_child(work: Callable[[], Any], memory: int | None = None) -> Any:
    """Return the plain values that `work` returns in a forked child.

    Args:
        memory: bytes that the child may allocate in addition; None: no limit.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        try:
            if memory:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
            answer = {"result": work()}
        except BaseException:
            answer = {"fault": traceback.format_exc()}
        with os.fdopen(sending, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert said, f"the child ended with status {status}"
    answer = json.loads(said)
    assert "fault" not in answer, answer["fault"]
    return answer["result"]


WATCHED = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect")


def run_watched(module: str, lines: list[list[str]]) -> tuple[list[int], list[str], list[str]]:
    """Run a command's main on each list of arguments; return exit codes, the processes started, and the errors."""
    events: list[str] = []
    sys.addaudithook(lambda event, args: events.append(event) if event in WATCHED else None)
    main, codes, errors = importlib.import_module(module).main, [], []
    for line in lines:
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        try:
            codes.append(main(line))
        except BaseException:
            codes.append(1)
            traceback.print_exc()
        errors.append(sys.stderr.getvalue())
    return codes, events, errors


def same_arrays(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Return whether two state_dicts hold the same numbers under the same names."""
    return list(a) == list(b) and all(np.array_equal(a[k].numpy(), b[k].numpy(), equal_nan=True) for k in a)
