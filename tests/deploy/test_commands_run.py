"""Running packed files from end to end: the classes of pictures, and the packed checkpoint's accuracy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from deploy import packed
from deploy.operations.functions import Softmax
from engine.errors import USAGE
from quant import restore
from tests.conftest import assert_refused
from tests.tools.contents import raw

Command = Callable[..., SimpleNamespace]
PACK, RUN = "deploy.pack", "deploy.run"
STEMS = ("refine", "w4a4", "lsq_w4a4", "int8_q0_fold0", "ptq_kl", "wbab", "wtab", "w4a4_merged")
DIGITS = ("--dataset", "digits", "--evaluate", "--quiet")


def path_of(stem: str) -> Path:
    return Path(f"models_save/nin_{stem}.pth")


def photo(name: str, rows: int = 40, columns: int = 50, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    Image.fromarray(pixels).resize((columns, rows)).save(name)
    return name


@pytest.fixture
def ready(stocked: Command) -> Callable[[str], str]:
    """Return a function that packs a file and returns the packed file's path."""

    def pack(stem: str, *flags: str) -> str:
        done = stocked(PACK, "--model", path_of(stem), *flags)
        assert done.code == 0, done.err
        return done.path

    return pack


@pytest.mark.parametrize(
    ("stem", "executor"),
    [*((stem, "torch") for stem in STEMS), *((stem, "reference") for stem in STEMS[:4]), ("w4a4", "auto")],
)
def test_the_accuracy_is_the_checkpoints(
    stem: str, executor: str, stocked: Command, ready: Callable[[str], str]
) -> None:
    """Few of 360 pictures differ: first and last layers and the picture are rounded, and the networks are hardly trained."""
    result = stocked(RUN, "--model", ready(stem), *DIGITS, "--executor", executor, "--json")
    assert result.code == 0, result.err
    found, known = json.loads(result.out), raw(path_of(stem))
    assert found["accuracy"] == pytest.approx(known["best_acc"], abs=500 / 360 + 1e-9)
    assert found["loss"] == pytest.approx(known["metrics"]["loss"], rel=0.01)
    assert found["executor"] in {"auto": ("native", "torch")}.get(executor, (executor,))


@pytest.mark.parametrize("executor", ["reference", "native", "torch"])
def test_with_ends_that_were_trained_in_8_bits_it_is_the_very_same(
    executor: str, stocked: Command, ready: Callable[[str], str]
) -> None:
    found = json.loads(stocked(RUN, "--model", ready("wtab_ends"), *DIGITS, "--executor", executor, "--json").out)
    known = raw(path_of("wtab_ends"))
    assert found["accuracy"] == known["best_acc"]
    assert found["loss"] == pytest.approx(known["metrics"]["loss"], rel=1e-5)


@pytest.mark.parametrize("stem", ["refine", "w4a4", "lsq_w4a4", "int8_q0_fold0", "ptq_kl", "wbab", "wtab"])
def test_with_float_ends_it_is_the_very_same(stem: str, stocked: Command, ready: Callable[..., str]) -> None:
    found = json.loads(stocked(RUN, "--model", ready(stem, "--ends", "float"), *DIGITS, "--json").out)
    known = raw(path_of(stem))
    assert found["accuracy"] == known["best_acc"]
    assert found["loss"] == pytest.approx(known["metrics"]["loss"], rel=1e-3)


def test_what_is_said_of_an_accuracy(stocked: Command, ready: Callable[[str], str]) -> None:
    path = ready("refine")
    known = raw(path_of("refine"))["best_acc"]
    said = f"test accuracy {known:.2f} % -> {known:.2f} % on digits (360 pictures)"
    result = stocked(RUN, "--model", path, "--evaluate", "--executor", "reference")  # the data set is the file's
    assert result.out == f"{said}; reference, fp32, the definition\n"
    assert result.err == "evaluating the packed file\n"
    assert stocked(RUN, "--model", path, "--evaluate", "--executor", "torch").out == f"{said}; torch, fp32\n"


def test_classes_beyond_those_of_the_pictures_have_numbers(stocked: Command, ready: Callable[[str], str]) -> None:
    """--classes 20 trains a network with more outputs than its data set has classes."""
    path = Path(ready("refine"))
    held = packed.open(path)
    few = replace(held.made.dataset, classes=2, names=("zero", "one"))
    packed.save(replace(held, made=replace(held.made, dataset=few)), path)
    result = stocked(RUN, "--model", str(path), photo("one.png"), "--top", "10")
    assert result.code == 0
    assert sorted(re.findall(r"(\S+ ?\d?) \d+\.\d %", result.out)) == [
        *(f"class {n}" for n in range(2, 10)),
        "one",
        "zero",
    ]


@pytest.mark.parametrize("log", [False, True])
def test_a_network_that_ends_in_a_softmax_gives_the_same_probabilities(
    log: bool, stocked: Command, ready: Callable[[str], str]
) -> None:
    path, names = Path(ready("refine")), [photo("one.png")]
    plain = stocked(RUN, "--model", str(path), *names, "--top", "10").out
    held = packed.open(path)
    last = Softmax(sources=(len(held.program.operations),), name="shares", axis=0, log=log)
    program = replace(held.program, operations=(*held.program.operations, last))
    packed.save(replace(held, program=program), path)
    assert stocked(RUN, "--model", str(path), *names, "--top", "10").out == plain


def shares(stem: str, names: list[str]) -> Tensor:
    """Return the softmax of the checkpoint's own network: the short side at 8, the middle square, normalised."""
    opened = restore.open(path_of(stem))
    info = opened.checkpoint.dataset
    bytes_ = []
    for name in names:
        with Image.open(name) as picture:
            scale = 8 / min(picture.size)
            width, height = (round(side * scale) for side in picture.size)
            small = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - 8) // 2, (height - 8) // 2
        bytes_.append(torch.from_numpy(np.array(small.crop((left, top, left + 8, top + 8)))))
    x = torch.stack(bytes_).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in (info.mean, info.std))
    with torch.no_grad():
        return torch.softmax(opened.network.eval()((x - mean) / std), 1)


@pytest.mark.parametrize("executor", ["torch", "reference"])
@pytest.mark.parametrize("stem", ["refine", "lsq_w4a4", "int8_q0_fold0"])
def test_two_pictures_have_a_line_each(stem: str, executor: str, stocked: Command, ready: Callable[[str], str]) -> None:
    path, names = ready(stem), [photo("one.png"), photo("two.jpg", 60, 9, seed=1)]
    result = stocked(RUN, "--model", path, *names, "--executor", executor, "--top", "10")
    assert result.code == 0
    assert result.err.startswith(f"run by: {executor}, ")
    expected = shares(stem, names)
    lines = result.out.splitlines()
    assert len(lines) == 2
    for name, line, row in zip(names, lines, expected, strict=True):
        assert line.startswith(f"{name}: class {row.argmax().item()} ")
        found = [(int(n), float(share)) for n, share in re.findall(r"class (\d) (\d+\.\d) %", line)]
        assert sorted(n for n, _ in found) == [*range(10)]
        each = [share for _, share in found]
        assert each == sorted(each, reverse=True)
        assert sum(each) == pytest.approx(100, abs=0.5)
        assert each == pytest.approx([100 * row[n].item() for n, _ in found], abs=0.1 if stem == "refine" else 1.5)


def test_json_of_two_pictures(stocked: Command, ready: Callable[[str], str]) -> None:
    path, names = ready("refine"), [photo("one.png"), photo("two.png", seed=1)]
    found = json.loads(stocked(RUN, "--model", path, *names, "--json").out)
    assert [each["picture"] for each in found["pictures"]] == names
    for each, row in zip(found["pictures"], shares("refine", names), strict=True):
        best = row.topk(3)
        assert [one["name"] for one in each["classes"]] == [f"class {n}" for n in best.indices.tolist()]
        assert [one["probability"] for one in each["classes"]] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert found["executor"] in ("native", "torch")


def test_pictures_are_classified_in_parts(stocked: Command, ready: Callable[[str], str]) -> None:
    path, names = ready("w4a4"), [photo(f"{seed}.png", seed=seed) for seed in range(5)]
    together = stocked(RUN, "--model", path, *names).out
    assert stocked(RUN, "--model", path, *names, "--eval_batch_size", "2").out == together
    assert [line.partition(":")[0] for line in together.splitlines()] == names


def test_other_test_pictures_than_the_files_are_refused(stocked: Command, ready: Callable[[str], str]) -> None:
    path = ready("w4a4")
    wrong = stocked(RUN, "--model", path, "--evaluate", "--dataset", "digits", "--image_size", "16")
    assert_refused(wrong, USAGE, "the packed network reads pictures of 8x8")
    assert "--image_size 8" in wrong.err


def test_pictures_are_normalised_as_the_file_was_packed(stocked: Command, ready: Callable[[str], str]) -> None:
    """A packed file starts from the picture's bytes: another mean is refused, or changes nothing."""
    path, other = ready("refine"), ("--mean", "0,0,0", "--std", "1,1,1")
    result = stocked(RUN, "--model", path, *DIGITS, *other, "--json")
    assert result.code == USAGE or json.loads(result.out)["accuracy"] == pytest.approx(
        raw(path_of("refine"))["best_acc"]
    )
    name = photo("one.png")
    shown = stocked(RUN, "--model", path, name, *other)
    assert shown.code == USAGE or shown.out == stocked(RUN, "--model", path, name).out
