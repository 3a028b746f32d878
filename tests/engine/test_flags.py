"""Arguments that cannot be meant end in exit 2, one `error:` and one `hint:` line; --help answers without torch."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from engine import flags

TRAIN, PRUNE, GC, WQAQ = "prune.train", "prune.normal_regular", "prune.gc", "quant.wqaq"
COMMANDS = (TRAIN, PRUNE, GC, WQAQ)

BAD = [
    *((PRUNE, f"--percent {v}") for v in ("nan", "inf", "1e400", "-0.5", "1.5", "50", "1.0", "half", "-1e-9", "1", "0.2_5", "0_5e-1")),
    *((GC, f"--percent {v}") for v in ("nan", "100")),
    *((PRUNE, f"--normal_regular {v}") for v in ("0", "-8", "1.5", "eight", "1e1", "inf")),
    *((WQAQ, f"--Wbits {v}") for v in ("0", "-1", "1.5", "9", "31", "33", "1_6", "1", "16", "x", "²", "nan")),
    *((WQAQ, f"--Abits {v}") for v in ("0", "1", "64")),
    *((TRAIN, f"--epochs {v}") for v in ("0", "-1", "1.5", "1_0", "nan", "1" + "0" * 400)),
    *((TRAIN, f"--lr {v}") for v in ("nan", "-1", "0", "inf", "1e400", "0_1", "fast")),
    *((TRAIN, f"--wd {v}") for v in ("nan", "-1e-4")),
    *((TRAIN, f"--train_batch_size {v}") for v in ("0", "1", "-5")),
    *((WQAQ, f"--seed {v}") for v in (str(2**63), "-1", "0.5")),
    *((TRAIN, f"--cfg {v}") for v in ("1,2,x", "0,1", "8,-8", ",", "8;8", "99999")),
    *((TRAIN, f) for f in ("--classes 1", "--image_size 7", "--image_size 2000", "--num_workers -1", "--type 3", "--val -1")),
    *((TRAIN, f) for f in ("--dataset mnist", "--device tpu", "--precision fp16", "--recipe best", "--threads 0")),
    *((TRAIN, f) for f in ("--save", "--lr", "extra", "-x", "-s 0.1", "--s 0 -sr", "--s nan -sr", "--quiet=1")),
    *((PRUNE, f) for f in ("--perc 0.5", "--normal_regul 8", "--percent=0.5=1", "--Percent 0.5", "--bn_batches 0")),
    (WQAQ, "--wbits 8"), (WQAQ, "--Wbit 8"), (WQAQ, "--refin F"), (GC, "--normal-regular 8"),
    (TRAIN, "--cpu --device cuda"), (WQAQ, "--device cuda --cpu"), (GC, "--cpu --device cuda"),
    (TRAIN, "--s 0.001"), (TRAIN, "--refine a.pth --from_scratch b.pth"), (TRAIN, "--refine --from_scratch"),
    (TRAIN, "--refine a.pth --cfg 8,8"), (TRAIN, "--type 0 --arch nin_gc"), (PRUNE, "--cfg 8,8"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "line"), BAD, ids=lambda v: v)
def test_bad_arguments_are_two_lines_on_stderr(command: Callable[..., SimpleNamespace], module: str, line: str) -> None:
    result = command(module, *line.split())
    assert result.code == 2
    assert result.out == ""
    error, hint = result.err.splitlines()
    assert error.startswith("error: ")
    assert len(error) > 10
    assert hint.startswith("hint: ")
    assert len(hint) > 10


@pytest.mark.parametrize(
    ("module", "line", "error", "hint"),
    [
        (PRUNE, "--percent 50", "argument --percent: '50' is not in [0, 1)", "did you mean 0.5?"),
        (PRUNE, "--perc 0.5", "unknown argument --perc", "did you mean --percent?"),
        (PRUNE, "--normal_regula=8", "unknown argument --normal_regula=8", "did you mean --normal_regular?"),
        (WQAQ, "--wbits 8", "unknown argument --wbits", "did you mean --Wbits?"),
        (
            TRAIN,
            "--epochs 0",
            "argument --epochs: '0' is not a whole number of at least 1 and at most 1e+06",
            "see python -m prune.train --help",
        ),
        (TRAIN, "--lr 0", "argument --lr: '0' is not a number above 0", "see python -m prune.train --help"),
        (TRAIN, "--cpu --device cuda", "--cpu contradicts --device cuda", "give one of them"),
        (TRAIN, "--s 0.001", "--s without -sr has no effect", "add -sr"),
        (TRAIN, "--refine --from_scratch", "--refine contradicts --from_scratch", "give one of them"),
        (TRAIN, "--type 0 --arch nin_gc", "--type 0 means nin, --arch says nin_gc", "give one of them"),
    ],
)
def test_the_lines_say_what_to_do(
    command: Callable[..., SimpleNamespace], module: str, line: str, error: str, hint: str
) -> None:
    assert command(module, *line.split()).err == f"error: {error}\nhint: {hint}\n"


def test_an_argument_of_many_lines_is_still_reported_in_two(command: Callable[..., SimpleNamespace]) -> None:
    assert command(TRAIN, "--arch", "nin", "two\nlines\n").err.count("\n") == 2


def parsed(module: str, *line: str) -> argparse.Namespace:
    return importlib.import_module(module).parser().parse_args(line)


def test_what_people_write_is_understood() -> None:
    assert parsed(WQAQ, "--Wbits", "８").Wbits == 8  # a full-width digit of an Asian keyboard
    assert parsed(PRUNE, "--normal_regular", "８").normal_regular == 8
    assert parsed(PRUNE, "--percent", "0").percent == 0
    assert parsed(PRUNE, "--percent=.999").percent == 0.999
    assert parsed(WQAQ, "--seed", str(2**63 - 1)).seed == 2**63 - 1
    assert parsed(TRAIN, "--lr", "1e-3").lr == 0.001
    assert parsed(TRAIN, "-sr", "--s", "1e-4").sr is True
    assert parsed(TRAIN, "--refine").refine == ""
    assert parsed(TRAIN).refine is None
    assert parsed(TRAIN, "--resume").resume == "auto"
    for text in ("192,160,96", "[192, 160, 96]", "192, 160, 'A', 96,", "(192,160,96)"):
        assert flags.widths(text) == [192, 160, 96]
    assert [flags.bits(str(k)) for k in flags.BITS] == list(flags.BITS)


def test_defaults_of_the_two_pruning_commands_differ() -> None:
    found = [(a.percent, a.normal_regular, a.default_arch) for a in (parsed(PRUNE), parsed(GC))]
    assert found == [(0.5, 1, "nin"), (0.4, 1, "nin_gc")]


def test_the_edges_of_a_number() -> None:
    inside = flags.number(float, 0, 1, open_low=True)
    assert [inside(t) for t in ("1", "0.5", "1e-300")] == [1, 0.5, 1e-300]
    for text in ("0", "1.0000001", "-0.0", "nan", "", "0x1"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0 and at most 1"):
            inside(text)


HELP = """
import sys
sys.argv[1:] = ["--help"]
import runpy
try:
    runpy.run_module({!r}, run_name="__main__")
except SystemExit as end:
    heavy = [m for m in ("torch", "torchvision", "numpy", "sklearn") if m in sys.modules]
    sys.exit("imports " + ", ".join(heavy) if heavy else end.code)
"""


@pytest.mark.parametrize("module", COMMANDS)
def test_help_needs_no_torch_and_ends_in_examples(module: str) -> None:
    best = 9.0
    for _ in range(3):  # the machine may be busy: the quickest of three counts
        started = time.monotonic()
        result = subprocess.run(
            [sys.executable, "-c", HELP.format(module)], capture_output=True, text=True, check=False
        )
        best = min(best, time.monotonic() - started)
        if best < 1:
            break
    assert result.returncode == 0, result.stderr
    assert best < 1
    assert result.stdout.startswith(f"usage: python -m {module} ")
    examples = result.stdout.partition("\nexamples:\n")[2].splitlines()
    assert examples
    for example in examples:
        program, *arguments = example.removeprefix("  python -m ").split()
        assert program == module
        parsed(module, *arguments)  # and they can be typed as they stand
