"""Errors of packing and running: two lines, the right exit code, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.native.compiler import engine
from engine.errors import BAD_CHECKPOINT, BAD_DATA, CANNOT_WRITE, USAGE
from engine.system.compiled import Unavailable
from tests.conftest import assert_refused

Command = Callable[..., SimpleNamespace]
PACK, RUN = "deploy.pack", "deploy.run"
W4A4, PACKED = "models_save/nin_w4a4.pth", "models_save/nin_w4a4.safetensors"


@pytest.fixture(scope="module")
def _kept() -> dict[str, bytes]:
    """Return a cache of the packed file, so that it is packed once."""
    return {}


@pytest.fixture
def ready(stocked: Command, _kept: dict[str, bytes]) -> Command:
    """Return `command` in a folder with a packed file, a picture, text files and files that do not hold a network."""
    if not _kept:
        with suppress(Unavailable):
            engine()  # or the first command that needs it says that it compiles
        assert stocked(PACK, "--model", W4A4).code == 0
        _kept[PACKED] = Path(PACKED).read_bytes()
    Path(PACKED).write_bytes(_kept[PACKED])
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save("black.png")
    for name in ("text.pth", "text.safetensors", "text.png"):
        Path(name).write_text("no network, and no picture")
    Path("empty.png").touch()
    torch.save({"a": torch.zeros(3)}, "other.pth")
    Path("folder.safetensors").mkdir()
    for name in ("pipe", "pipe.safetensors"):
        os.mkfifo(name)
    Path("renamed").write_bytes(_kept[PACKED])
    return stocked


def everything() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


REFUSED = [
    (PACK, ("--model", "text.pth"), BAD_CHECKPOINT, ["text.pth"]),
    (PACK, ("--model", PACKED, "--save", "a.safetensors", "--ends", "float"), USAGE, [f"--ends float: {PACKED} is already packed"]),
    (PACK, ("--model", PACKED, "--save", "a.safetensors", "--mean", "0,0,0"), USAGE, [f"--mean: {PACKED} is already packed"]),
    (PACK, ("--model", "other.pth"), BAD_CHECKPOINT, ["other.pth"]),
    (PACK, ("--model", "gone.pth"), BAD_CHECKPOINT, ["gone.pth: no such file"]),
    (PACK, ("--model", "text.safetensors", "--save", "a.safetensors"), BAD_CHECKPOINT, ["text.safetensors: it is damaged, or not a packed file"]),
    (PACK, ("--model", W4A4, "--save", W4A4), USAGE, [f"{W4A4} is both input and output"]),
    (PACK, ("--model", PACKED), USAGE, [f"{PACKED} is already packed"]),
    (PACK, ("--model", W4A4, "--save", f"./there/../{W4A4}"), USAGE, ["is both input and output"]),
    (PACK, ("--model", W4A4, "--save", "folder.safetensors"), CANNOT_WRITE, ["folder.safetensors"]),
    (PACK, ("--model", W4A4, "--ends", "int4"), USAGE, ["--ends"]),
    (PACK, ("--model", W4A4, "--arch", "nin_gc"), USAGE, ["nin_gc"]),
    (PACK, ("--model", W4A4, "--mean", "0.5", "--std", "0.5"), USAGE, ["1 and 1 numbers", "3 channels"]),
    (PACK, ("--inspect", PACKED, "--model", W4A4), USAGE, ["--inspect does not go with --model or --save"]),
    (PACK, ("--inspect", PACKED, "--save", "a"), USAGE, ["--inspect does not go with --model or --save"]),
    (PACK, ("--inspect", W4A4), BAD_CHECKPOINT, [f"{W4A4}: it is not a packed file"]),
    (PACK, ("--inspect", "gone.safetensors"), BAD_CHECKPOINT, ["gone.safetensors"]),
    (RUN, ("--evaluate",), USAGE, ["--model"]),
    (RUN, ("--model", PACKED), USAGE, ["no pictures"]),
    (RUN, ("--model", PACKED, "black.png", "--evaluate"), USAGE, ["both pictures and --evaluate"]),
    (RUN, ("--model", W4A4, "black.png"), BAD_CHECKPOINT, [f"{W4A4}: it is not a packed file, but by its name a checkpoint"]),
    (RUN, ("--model", "gone.safetensors", "black.png"), BAD_CHECKPOINT, ["gone.safetensors"]),
    (RUN, ("--model", "folder.safetensors", "black.png"), BAD_CHECKPOINT, ["folder.safetensors"]),
    (RUN, ("--model", PACKED, "black.png", "gone.png"), BAD_DATA, ["cannot read gone.png: no such file"]),
    (RUN, ("--model", PACKED, "folder.safetensors"), BAD_DATA, ["it is a folder"]),
    (RUN, ("--model", PACKED, "black.png", "--image_size", "64"), USAGE, ["--image_size goes with --evaluate"]),
    (PACK, ("--inspect", "pipe.safetensors"), BAD_CHECKPOINT, ["pipe.safetensors: it is not a regular file"]),
    (PACK, ("--model", "pipe.safetensors", "--save", "a.safetensors"), BAD_CHECKPOINT, ["pipe.safetensors: it is not a regular file"]),
    (PACK, ("--model", "pipe", "--save", "a.safetensors"), BAD_CHECKPOINT, ["pipe: not a regular file"]),
    (RUN, ("--model", "pipe", "black.png"), BAD_CHECKPOINT, ["pipe: it is not a regular file"]),
    (PACK, ("--model", "renamed"), USAGE, ["renamed is already packed"]),
    ("deploy.bench", ("--model", "renamed"), USAGE, ["renamed is packed, and PyTorch cannot run packed files"]),
    ("deploy.onnx", ("--model", "renamed", "--ends", "float"), USAGE, ["--ends float: renamed is already packed"]),
    (PACK, ("--model", W4A4, "--save", "small"), USAGE, ["--save small: the file must end in .safetensors"]),
    (PACK, ("--model", W4A4, "--save", "w.4"), USAGE, ["--save w.4: the file must end in .safetensors"]),
    ("deploy.onnx", ("--model", W4A4, "--save", "small"), USAGE, ["the file must end in .onnx"]),
    (PACK, ("--model", W4A4, "--save", "a.pth"), USAGE, ["--save a.pth: the file must end in .safetensors"]),
    ("deploy.onnx", ("--model", W4A4, "--save", "a.safetensors"), USAGE, ["the file must end in .onnx"]),
    ("deploy.bench", ("--model", W4A4, "--without", "nobody"), USAGE, ["--without 'nobody' names none of"]),
    ("scripts.summary", (PACKED,), BAD_CHECKPOINT, ["a packed file: it can be run, but holds no network"]),
    ("engine.checkpoint.__main__", ("inspect", PACKED), BAD_CHECKPOINT, ["a packed file: it can be run"]),
    (RUN, ("--model", PACKED, "text.png", "black.png"), BAD_DATA, ["cannot read text.png"]),
    (RUN, ("--model", PACKED, "empty.png"), BAD_DATA, ["empty.png", "an empty file"]),
    (RUN, ("--model", PACKED, "black.png", "--top", "0"), USAGE, ["--top"]),
    (RUN, ("--model", PACKED, "black.png", "--executor", "rust"), USAGE, ["--executor"]),
    *((RUN, ("--model", PACKED, "--evaluate", *given), USAGE, [f"{given[0]} goes with pictures, not with --evaluate"])
      for given in (("--top", "2"), ("--score", "0.5"), ("--draw", "found"))),
    *((RUN, ("--model", PACKED, "black.png", *given), USAGE, [f"{given[0]} is for detectors, and {PACKED} holds a classifier"])
      for given in (("--score", "0.5"), ("--draw", "found"), ("--arch", "nin"))),
    (RUN, ("--model", PACKED, "--evaluate", "--arch", "nin"), USAGE, ["--arch is for detectors"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "words", "code", "told"), REFUSED, ids=[f"{module} {' '.join(words)}" for module, words, _, _ in REFUSED]
)
def test_faults_are_two_lines_and_nothing_is_written(
    module: str, words: tuple[str, ...], code: int, told: list[str], ready: Command
) -> None:
    before = everything()
    result = ready(module, *words)
    assert_refused(result, code, *told)
    assert everything() == before


@pytest.mark.parametrize(
    ("save", "hint"), [("small", "small.safetensors"), ("w.4", "w.4.safetensors"), ("a.onnx", "a.safetensors")]
)
def test_a_name_without_the_suffix_is_completed_in_the_hint(save: str, hint: str, ready: Command) -> None:
    assert ready(PACK, "--model", W4A4, "--save", save).err.endswith(f"\nhint: give --save {hint}\n")


def test_a_packed_file_is_known_whatever_its_name(ready: Command) -> None:
    for path in ("renamed", PACKED):
        assert ready(RUN, "--model", path, "black.png").code == 0
        assert ready(PACK, "--model", path, "--save", f"{path}.copy.safetensors").code == 0
        assert Path(f"{path}.copy.safetensors").read_bytes() == Path(PACKED).read_bytes()


@pytest.mark.parametrize("module", [PACK, "deploy.onnx", "deploy.bench"])
def test_the_default_file_is_made_by_merging(module: str, command: Command) -> None:
    missing = command(module)
    assert_refused(missing, BAD_CHECKPOINT, "models_save/nin_wbab_merged.pth: no such file")
    assert "make it with: " in missing.err
    assert missing.err.endswith("bn_merge --W 2\n")


def test_a_packed_file_that_was_changed_is_not_run(ready: Command) -> None:
    content = bytearray(Path(PACKED).read_bytes())
    content[-1] ^= 1
    Path(PACKED).write_bytes(content)
    changed = ready(RUN, "--model", PACKED, "--evaluate")
    assert_refused(changed, BAD_CHECKPOINT, PACKED, "checksum")
    assert "deploy.pack" in changed.err


def test_debug_shows_where_a_fault_arose(ready: Command) -> None:
    assert "Traceback" in ready(RUN, "--model", W4A4, "black.png", "--debug").err


def test_a_checkpoint_in_place_of_a_packed_file_is_packed_first(command: Callable) -> None:
    Path("some.pth").write_bytes(b"no packed file")
    found = command(RUN, "--model", "some.pth", "black.png")
    assert "hint: make one: python -m deploy.pack --model some.pth" in found.err
