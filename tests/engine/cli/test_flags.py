"""The values that flags accept: usual spellings, limits of ranges, defaults. tests/test_arguments.py has what they refuse."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

import models
from engine.cli import archs, argtypes, flags, options
from engine.errors import UserError
from engine.training import recipe
from engine.training.recipe import Recipe
from prune import train
from quant import settings

TRAIN, PRUNE, GC, WQAQ, WBWTAB = "prune.train", "prune.normal_regular", "prune.gc", "quant.wqaq", "quant.wbwtab"


def parsed(module: str, *line: str) -> argparse.Namespace:
    return importlib.import_module(module).parser().parse_args(line)


def test_what_people_write_is_understood() -> None:
    assert parsed(WQAQ, "--Wbits", "８").Wbits == 8  # a full-width digit from an Asian keyboard
    assert parsed(PRUNE, "--normal_regular", "８").normal_regular == 8
    assert parsed(WBWTAB, "--W", "３").W == 3
    assert parsed(TRAIN, "--cfg", "１６,８").cfg == [16, 8]
    assert parsed(PRUNE, "--percent", "0").percent == 0
    assert parsed(PRUNE, "--percent=.999").percent == 0.999
    assert parsed(WQAQ, "--seed", str(2**63 - 1)).seed == 2**63 - 1
    assert parsed(TRAIN, "--lr", "1e-3").lr == 0.001
    assert parsed(TRAIN, "-sr", "--s", "1e-4").sr is True
    assert parsed(WQAQ, "--q_type", "0").q_type == 0
    for text in ("192,160,96", "[192, 160, 96]", "192, 160, 'A', 96,", "(192,160,96)"):
        assert argtypes.widths(text) == [192, 160, 96]
    assert [settings.width(str(k)) for k in (*range(2, 9), 32)] == [*range(2, 9), 32]
    assert [settings.width(k) for k in ("t", "b")] == ["t", "b"]


@pytest.mark.parametrize("flag", ["refine", "from_scratch", "evaluate"])
def test_a_flag_without_a_value_is_told_from_one_that_is_absent(flag: str) -> None:
    assert getattr(parsed(TRAIN), flag) is None
    assert getattr(parsed(TRAIN, f"--{flag}"), flag) is True
    assert getattr(parsed(TRAIN, f"--{flag}", "a.pth"), flag) == Path("a.pth")


def test_mirroring_is_asked_for_refused_or_left_to_the_data() -> None:
    assert [parsed(TRAIN, *words).flip for words in ((), ("--flip",), ("--no-flip",))] == [None, True, False]


def test_resume_takes_auto_or_a_file() -> None:
    assert parsed(TRAIN).resume is None
    assert parsed(TRAIN, "--resume").resume == parsed(TRAIN, "--resume", "auto").resume == "auto"
    assert parsed(TRAIN, "--resume", "runs/nin/state.pth").resume == Path("runs/nin/state.pth")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("a --resume", "a"), ("a --resume auto -sr", "a -sr"), ("a --resume=F -sr", "a -sr"), ("--resume -sr", "-sr"),
        ("a --lr 1", "a --lr 1"), ("a --resume F --lr 1", "a --lr 1"), ("a --resume F --resume G b", "a b"),
        ("a --resume --resume=F b", "a b"), ("a --resumed F", "a --resumed F"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flag", ["--resume", "--evaluate"])
def test_a_command_line_without_a_flag(given: str, left: str, flag: str) -> None:
    words = given.replace("--resume", flag).split()
    assert flags.without(words, flag) == tuple(left.replace("--resume", flag).split())


def test_paths_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert parsed(TRAIN, "--save=~/nets/a.pth").save == Path(
        "/home/someone/nets/a.pth"
    )  # shells expand only `--save ~`
    for text in (
        "with spaces.pth",
        "模型.pth",
        "./-dash.pth",
        "~other/a.pth",
        "a~.pth",
        "x" * 300,
        "\udcff.pth",
        "*.pth",
    ):
        assert parsed(TRAIN, f"--save={text}").save == Path(text)
    assert parsed(TRAIN, "--save=-dash.pth").save == Path("-dash.pth")


def test_the_names_of_networks_are_those_of_the_registry() -> None:
    assert list(archs.ARCHS) == models.names()
    for name in (*models.names(), "my_net:residual", "a.b:c"):
        assert parsed(TRAIN, "--arch", name).arch == name


def test_defaults_of_the_two_pruning_commands_differ() -> None:
    found = [(a.percent, a.normal_regular, a.default_arch) for a in (parsed(PRUNE), parsed(GC))]
    assert found == [(0.5, 1, "nin"), (0.4, 1, "nin_gc")]


def test_the_edges_of_a_number() -> None:
    inside = argtypes.number(float, 0, 1, open_low=True)
    assert [inside(t) for t in ("1", "0.5", "1e-300")] == [1, 0.5, 1e-300]
    for text in ("0", "1.0000001", "-0.0", "nan", "", "0x1"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0 and at most 1"):
            inside(text)


def test_defaults_in_words() -> None:
    other = Recipe(7, 128, lr=0.5)
    assert (
        options.in_words("epochs", {"float": recipe.for_float})
        == "60 (digits 10; scenes 16), refining 20 (digits 6; scenes 8)"
    )
    assert options.in_words("lr", {"a": recipe.for_float, "b": lambda *_: other}) == (
        "a 0.05 (scenes, coco, yolo 0.04), refining 0.02 (scenes, coco, yolo 0.015); b 0.5"
    )
    assert options.in_words("lr", {"a": lambda *_: other, "b": lambda *_: other}) == "0.5"


def test_help_tells_the_defaults_that_training_takes() -> None:
    text = " ".join(importlib.import_module(TRAIN).parser().format_help().split())
    chosen = [recipe.for_float(name, refine) for refine in (False, True) for name in ("cifar10", "digits")]
    assert (
        "--epochs N default: {} (digits {}; scenes 16), refining {} (digits {}; scenes 8) --lr".format(
            *(r.epochs for r in chosen)
        )
        in text
    )
    assert f"(default: {chosen[0].lr:g} (scenes, coco, yolo 0.04), refining {chosen[2].lr:g} (" in text


@pytest.mark.parametrize(
    "given", ["--epochs 5", "--lr 0.1", "--wd 0.1", "--train_batch_size 8", "--recipe original", "--precision bf16",
              "--fused off", "--eval_every 2", "--profile", "--run_dir r"],
)  # fmt: skip
def test_flags_of_training_are_refused_beside_evaluate(given: str) -> None:
    with pytest.raises(UserError, match=f"--evaluate trains nothing, so {given.split()[0]} has no effect"):
        train.parser().options_of(["--evaluate", "a.pth", *given.split()])


@pytest.mark.parametrize("module", [TRAIN, WQAQ, WBWTAB])
@pytest.mark.parametrize("given", ["--save b.pth", "--refine c.pth"])
def test_flags_of_other_files_are_refused_beside_a_file_to_evaluate(module: str, given: str) -> None:
    for words, named in (
        (["--evaluate", "a.pth"], "--evaluate F"),
        (["--evaluate", "--weights", "a.pth"], "--weights"),
    ):
        with pytest.raises(UserError, match=f"{named} .*(has no effect|contradicts)"):
            importlib.import_module(module).parser().options_of([*words, *given.split()])


@pytest.mark.parametrize("given", ["-sr", "-sr --s 0.1", "--from_scratch"])
def test_flags_of_a_float_training_are_refused_beside_a_file_to_evaluate(given: str) -> None:
    why = f"--evaluate F names the file to evaluate, so {given.split()[0]} has no effect"
    with pytest.raises(UserError, match=why):
        train.parser().options_of(["--evaluate", "a.pth", *given.split()])


def test_flags_that_choose_the_file_to_evaluate_stay() -> None:
    for words in (["-sr", "--evaluate"], ["--save", "a.pth", "--evaluate"], ["--refine", "--evaluate"]):
        train.parser().options_of(words)
    for file in ([], ["a.pth"]):
        with pytest.raises(UserError, match="--evaluate writes nothing, so --overwrite has no effect"):
            train.parser().options_of(["--evaluate", *file, "--overwrite"])
