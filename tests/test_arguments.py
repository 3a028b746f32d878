"""Invalid arguments of every command: exit 2 with one `error:` and one `hint:` line, before torch is imported and before
anything is written; --help answers at once. engine/cli/test_flags.py has the accepted values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.tools.house import commands

ROOT = Path(__file__).parents[1]
TRAIN, PRUNE, GC, WQAQ, WBWTAB, PTQ = (
    "prune.train", "prune.normal_regular", "prune.gc", "quant.wqaq", "quant.wbwtab", "quant.ptq",
)  # fmt: skip
MERGE, COMPARE, REPORT, SUMMARY = "bn_merge.__main__", "bn_merge.compare", "scripts.report", "scripts.summary"
CHECKPOINT = "engine.checkpoint.__main__"
LONG = "9" * 5000
Case = tuple[str, tuple[str, ...]]


def each(module: str, *lines: str) -> list[Case]:
    """Return a case for each line, split at spaces."""
    return [(module, tuple(line.split())) for line in lines]


def values(module: str, flag: str, *texts: str, more: tuple[str, ...] = ()) -> list[Case]:
    """Return a case for each value of a flag, not split at spaces."""
    return [(module, (flag, text, *more)) for text in texts]


NUMBERS = [
    *values(PRUNE, "--percent", "nan", "inf", "-inf", "1e400", "-0.5", "1.5", "50", "1.0", "half", "-1e-9", "1", "0.2_5", "0_5e-1", "0,5", "50%", ""),
    *values(GC, "--percent", "nan", "100", "-0.4"),
    *values(PRUNE, "--normal_regular", "0", "-8", "1.5", "eight", "1e1", "inf", "1_6", LONG),
    *values(GC, "--normal_regular", "0", "-1"),
    *values(WQAQ, "--Wbits", "0", "-1", "1.5", "9", "31", "33", "1_6", "1", "16", "x", "²", "nan", "T", "tb", "", " 8", LONG),
    *values(WQAQ, "--Abits", "0", "1", "64", "2.0"), *values(WQAQ, "--q_type", "2", "-1", "1.0"), *values(WQAQ, "--bn_fold", "2", "yes"),
    *values(PTQ, "--Wbits", "1", "9", "32", "t", "0_4"), *values(PTQ, "--Abits", "32", "b"), *values(PTQ, "--q_type", "2"),
    *values(PTQ, "--calibration_pictures", "0", "-1", "1e3"), *values(PTQ, "--calibrate", "entropy", "KL", ""),
    *values(WBWTAB, "--W", "0", "1", "4", "8", "33", "b", "2.0", "3_2", "-2", ""), *values(WBWTAB, "--A", "1", "4", "t", "32.0"),
    *values(WBWTAB, "--bn_momentum", "0", "1.1", "nan", "-0.1"), *values(WBWTAB, "--ste", "magic", ""), *values(WBWTAB, "--wste", "soft"),
    *each(WBWTAB, "--W 32 --scale", "--W 32 --no-scale", "--W 32 --wste ste", "--A 32 --ste soft", "--A 3 --order bacp", "--A 32 --order cbap"),
    *values(WBWTAB, "--order", "abcp"), *values(MERGE, "--W", "1", "4", "b", "2.0"),
    *values(TRAIN, "--epochs", "0", "-1", "1.5", "1_0", "nan", "1" + "0" * 400, LONG),
    *values(TRAIN, "--lr", "nan", "-1", "0", "inf", "1e400", "1e-400", "1e39", "1e31", "0_1", "fast", ""),
    *values(TRAIN, "--wd", "nan", "-1e-4", "inf", "1e39"), *values(TRAIN, "--train_batch_size", "0", "1", "-5", "32.5"),
    *values(TRAIN, "--s", "0", "-0.1", "nan", "inf", "1e39", more=("-sr",)),
    *values(WQAQ, "--seed", str(2**63), "-1", "0.5", "1e3"), *values(SUMMARY, "--seed", str(2**64)),
    *values(TRAIN, "--cfg", "1,2,x", "0,1", "8,-8", ",", "8;8", "99999", "", "8, ,x", "nan"), *values(SUMMARY, "--cfg", "8,0"),
    *values(TRAIN, "--classes", "1", "0", "1e6"), *values(TRAIN, "--image_size", "7", "2000"), *values(TRAIN, "--num_workers", "-1"),
    *values(TRAIN, "--type", "3", "nin"), *values(TRAIN, "--val", "-1"), *values(TRAIN, "--threads", "0", "-1"),
    *values(TRAIN, "--mean", "0.5,0.5", "1,1,1,1", "125,123,114", "-0.1,0,0", "nan,0,0", "a,b,c", "0,5,0,5,0,5", ",,", ""),
    *values(TRAIN, "--std", "0.2,0.2", "0.2,0,0.2", "inf,1,1", "0.2;0.2;0.2"), *values("scripts.convert", "--std", "1,1", more=("a", "b")),
    *values(WQAQ, "--eval_batch_size", "0"), *values(COMPARE, "--eval_batch_size", "-1"), *values(PRUNE, "--bn_batches", "0"),
    *values("scripts.benchmark", "--pictures", "1"), *values("scripts.combinations", "--epochs", "0"),
]  # fmt: skip
CHOICES = [
    *values(TRAIN, "--dataset", "svhn", "digit", "CIFAR10", ""), *values(TRAIN, "--device", "tpu", "gpu", "cuda:0"),
    *values(TRAIN, "--precision", "fp16"), *values(TRAIN, "--recipe", "best"), *values(WQAQ, "--quantizer", "int8"),
    *values(TRAIN, "--arch", "nim", "resnet18", "", "NIN", "nin,nin_gc"), *values(REPORT, "--arch", "nni", more=("a.pth",)),
    *values(REPORT, "--units", "si", more=("a.pth",)), *values("scripts.quickstart", "--precision", "half"),
]  # fmt: skip
OPTIONS = [
    *each(TRAIN, "--save", "--lr", "extra", "-x", "-s", "-s r", "-s 0.1", "--sr", "-srx", "--quiet=1", "--refin F", "-refine", "--epoch 3", "--sa x.pth"),
    *each(PRUNE, "--perc 0.5", "--normal_regul 8", "--percent=0.5=1", "--Percent 0.5", "—percent 0.5", "--normalregular 8", "in.pth"),
    *each(WQAQ, "--wbits 8", "--Wbit 8", "--refin F", "--W 2"), *each(GC, "--normal-regular 8", "-percent 0.4", "--layers 9"),
    *each(WBWTAB, "--w 2", "--Wbits 8", "--noscale"), *each(MERGE, "--models a.pth", "a.pth"), *each(REPORT, "", "--save t.md", "a.pth --csv"),
    *each(SUMMARY, "a.pth b.pth", "--sensitive a.pth"), *each("scripts.quickstart", "--epochs 3"), *each(COMPARE, "--floats64"),
    *each(TRAIN, "--percent 0.5", "--Wbits=4", "--output x", "--batch-size 5", "--learning_rate 1", "--zzz"),
    *each(CHECKPOINT, "inspct a.pth"), (MERGE, ("a b.pth",)), (CHECKPOINT, ("a b.pth",)), *each(TRAIN, "a.pth", "--precision fp99"), *each(WQAQ, "--gap", "a.pth"), *each(PTQ, "--refine x", "--batch_size 5"),
]  # fmt: skip
CONTRADICTIONS = [
    *each(TRAIN, "--cpu --device cuda", "--s 0.001", "--refine a.pth --from_scratch b.pth", "--refine --from_scratch", "--refine a.pth --cfg 8,8"),
    *each(TRAIN, "--from_scratch --cfg 8", "--type 0 --arch nin_gc", "--evaluate --resume", "--evaluate a.pth --resume b.pth"),
    *each(WQAQ, "--device cuda --cpu", "--refine a.pth --cfg 8,8", "--quantizer dorefa --q_type 1", "--quantizer dorefa --no-per_channel"),
    *each(WQAQ, "--q_type 1 --Wbits t", "--bn_fold 1 --Abits b", "--q_type 0 --Wbits 32", "--type 2 --arch nin"),
    *each(WBWTAB, "--gap", "--gap --W 32", "--refine --cfg 8"), *each(PRUNE, "--cfg 8,8"), *each(GC, "--cpu --device cuda", "--cfg 8,8"),
    *each(PTQ, "--cfg 8,8", "--cpu --device cuda"), *each(MERGE, "--cfg 8,8"), *each(COMPARE, "a.pth b.pth c.pth", "--cfg 8,8"),
    *each(SUMMARY, "a.pth --cfg 8,8", "a.pth --classes 5", "--sensitivity"),
    *each(REPORT, "a.pth --save a.pth", "a.pth b.json --save b.md", "a.pth --save t.csv", "a.pth --save t.png"),
    *each(TRAIN, "--resume a.pth --save ./a.pth", "--resume run --save run/state.pth", "--resume run --save run/state.prev.pth"), *each("scripts.combinations", "--save a.pth"),
    *each(TRAIN, "--save net.py", "--save a/b/", "--save net.safetensors"),
    *each("scripts.convert", "a.pth net.py", "a.pth b.onnx"),
]  # fmt: skip
PATHS = [
    (WQAQ, ("--quantizer", "lsq", "--no-per_channel")),
    *((TRAIN, (flag, text)) for flag in ("--refine", "--from_scratch", "--evaluate", "--resume", "--save", "--run_dir", "--data") for text in ("", "a\nb")),
    *((module, (f"{flag}=",)) for module, flag in ((PRUNE, "--model"), (GC, "--save"), (PTQ, "--model"), (MERGE, "--model"), (WQAQ, "--refine"))),
    *((module, ("",)) for module in (REPORT, COMPARE, SUMMARY)), (REPORT, ("a.pth", "")), (REPORT, ("a.pth", "--save", "")),
    (TRAIN, ("--save", "-x.pth")), (PRUNE, ("--model", "-sparse.pth")), (TRAIN, ("--save", "a\r\nb.pth")), (COMPARE, ("a\u2028b.pth",)),
]  # fmt: skip
BAD: list[Case] = [*NUMBERS, *CHOICES, *OPTIONS, *CONTRADICTIONS, *PATHS]

ASK = """
import contextlib, importlib, io, json, os, sys
module, cases = json.load(sys.stdin)
main, answers = importlib.import_module(module).main, []
for argv in cases:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    answers.append([code, out.getvalue(), err.getvalue(), "torch" in sys.modules, os.listdir()])
print(json.dumps(answers))
"""


@cache
def answers(module: str, folder: Path) -> dict[tuple[str, ...], list]:
    """Return a command's output for each of its cases, run in one process in an empty folder."""
    cases = [argv for name, argv in BAD if name == module]
    place = folder / module
    place.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", ASK], input=json.dumps([module, cases]), cwd=place, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arguments")


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case[0]} {' '.join(case[1])!r:.60}")
def test_bad_arguments_are_refused(case: Case, folder: Path) -> None:
    code, out, err, torch, left = answers(case[0], folder)[case[1]]
    assert (code, out, left) == (2, "", [])
    assert not torch
    error, hint = err.split("\n")[:2]
    assert err == f"{error}\n{hint}\n"
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert min(len(error), len(hint)) > 12


def test_there_are_enough_cases() -> None:
    assert len(BAD) == len(set(BAD)) >= 120
    assert {module for module, _ in BAD} >= {TRAIN, PRUNE, GC, WQAQ, WBWTAB, PTQ, MERGE, COMPARE, REPORT, SUMMARY}


@pytest.mark.parametrize(
    ("module", "argv", "error", "hint"),
    [
        (PRUNE, ("--percent", "50"), "argument --percent: '50' is not in [0, 1)", "did you mean 0.5?"),
        (WQAQ, ("--wbits", "8"), "unknown argument --wbits", "did you mean --Wbits?"),
        (TRAIN, ("-s", "r"), "unknown argument -s", "did you mean -sr?"),
        (GC, ("-percent", "0.4"), "unknown argument -percent", "did you mean --percent?"),
        (WQAQ, ("--gap",), "unknown argument --gap", "--gap is a flag of quant.wbwtab"),
        (PTQ, ("--refine", "x"), "unknown argument --refine", "--refine is a flag of prune.train, quant.wqaq and quant.wbwtab"),
        (TRAIN, ("--percent", "0.5"), "unknown argument --percent", "--percent is a flag of prune.normal_regular and prune.gc"),
        (TRAIN, ("--Wbits=4",), "unknown argument --Wbits=4", "--Wbits is a flag of quant.wqaq and quant.ptq"),
        (TRAIN, ("--output", "x"), "unknown argument --output", "did you mean --save?"),
        (TRAIN, ("--batch-size", "5"), "unknown argument --batch-size", "did you mean --train_batch_size?"),
        (TRAIN, ("--learning_rate", "1"), "unknown argument --learning_rate", "did you mean --lr?"),
        (PTQ, ("--batch_size", "5"), "unknown argument --batch_size", "did you mean --eval_batch_size?"),
        (WBWTAB, ("--w", "2"), "unknown argument --w", "did you mean --W?"),
        (TRAIN, ("--zzz",), "unknown argument --zzz", "see python -m prune.train --help"),
        (MERGE, ("a b.pth",), "unknown argument a b.pth", "name its flag: --model 'a b.pth' or --weights 'a b.pth'"),
        (TRAIN, ("a.pth",), "unknown argument a.pth", "name its flag: --refine a.pth, --from_scratch a.pth, --evaluate a.pth or --weights a.pth"),
        (WQAQ, ("a.pth",), "unknown argument a.pth", "name its flag: --refine a.pth, --evaluate a.pth or --weights a.pth"),
        (TRAIN, ("extra",), "unknown argument extra", "see python -m prune.train --help"),
        (CHECKPOINT, ("a b.pth",), "argument what: 'a b.pth' is not one of inspect", "did you mean: inspect 'a b.pth'"),
        (CHECKPOINT, ("inspct", "a.pth"), "argument what: 'inspct' is not one of inspect", "did you mean inspect?"),
        (TRAIN, ("--dataset", "svhn"), "argument --dataset: 'svhn' is not one of auto, cifar10, cifar100, mnist, fashion_mnist, digits, scenes, imagefolder, coco, yolo",
         "choose auto, cifar10, cifar100, mnist, fashion_mnist, digits, scenes, imagefolder, coco or yolo"),
        (TRAIN, ("--precision", "fp99"), "argument --precision: 'fp99' is not one of auto, fp32, bf16, exact", "choose auto, fp32, bf16 or exact"),
        (TRAIN, ("--device", "gpu"), "argument --device: 'gpu' is not one of auto, cpu, cuda", "did you mean cuda?"),
        (TRAIN, ("--epochs", "0"), "argument --epochs: '0' is not an integer of at least 1 and at most 1,000,000",
         "see python -m prune.train --help"),
        (TRAIN, ("--s", "0.001"), "--s without -sr has no effect", "add -sr"),
        (TRAIN, ("--refine", ""), "argument --refine: '' is not a path", "did an earlier command of the pipeline fail?"),
        (TRAIN, ("--dataset", "digit"), "argument --dataset: 'digit' is not one of auto, cifar10, cifar100, mnist, fashion_mnist, digits, scenes, imagefolder, coco, yolo",
         "did you mean digits?"),
        (TRAIN, ("--arch", "nim"), "argument --arch: unknown network 'nim'", "did you mean nin?"),
        (WBWTAB, ("--W", "4"), "argument --W: 4 is not one of 2, 3, 32",
         "weights: 2 binary, 3 ternary, 32 float; quant.wqaq has the widths between (default: 2)"),
        (TRAIN, ("--save", "-x.pth"), "argument --save: expected one argument",
         "give it a value; write one that begins with a dash as --save=VALUE"),
        (TRAIN, ("--save", "a\nb"), r"argument --save: 'a\nb' holds a line break", "rename it: paths are passed on as lines"),
        (TRAIN, ("--lr", "1e39"), "argument --lr: '1e39' is not a number above 0 and at most 1e+30", "leave --lr out for the recipe's"),
        (TRAIN, ("--s", "1e39", "-sr"), "argument --s: '1e39' is not a number above 0 and at most 1e+30", "leave --s out for the default"),
        (TRAIN, ("--resume", "a.pth", "--save", "./a.pth"), "a.pth is both input and output", "name another --save"),
        (TRAIN, ("--resume", "run", "--save", "run/state.pth"), "run/state.pth is both input and output", "name another --save"),
        (TRAIN, ("--save", "net.py"), "argument --save: 'net.py' is a file of Python code", "name another file"),
        ("scripts.convert", ("a.pth", "net.py"), "argument NEW: 'net.py' is a file of Python code", "name another file"),
        (TRAIN, ("--save", "a/b/"), "argument --save: 'a/b/' is a folder", "name a file in it"),
        (TRAIN, ("--save", "net.safetensors"), "argument --save: 'net.safetensors' is the name of a packed file", "name the checkpoint net.pth"),
        ("scripts.convert", ("a.pth", "b.onnx"), "argument NEW: 'b.onnx' is the name of a packed file", "name the checkpoint b.pth"),
        ("scripts.combinations", ("--save", "a.pth"), "argument --save: 'a.pth' does not end in .md", "name the file F.md"),
        (TRAIN, ("--cpu", "--device", "cuda"), "--cpu contradicts --device cuda", "give one of them"),
        (TRAIN, ("--type", "0", "--arch", "nin_gc"), "--type 0 means nin, but --arch is nin_gc", "give one of them"),
        (TRAIN, ("--refine", "--from_scratch"), "--refine contradicts --from_scratch", "give one of them"),
        (WQAQ, ("--quantizer", "lsq", "--no-per_channel"), "--no-per_channel is for --quantizer affine, not lsq", "leave --no-per_channel or --quantizer lsq out"),
        (WBWTAB, ("--W", "32", "--no-scale"), "--no-scale is for binary or ternary weights, not --W 32", "leave --no-scale out"),
    ],
)  # fmt: skip
def test_the_lines_say_what_to_do(module: str, argv: tuple[str, ...], error: str, hint: str, folder: Path) -> None:
    assert answers(module, folder)[argv][2] == f"error: {error}\nhint: {hint}\n"


HELP = """
import importlib, sys, time
try:
    importlib.import_module({!r}).main(["--help"])
except SystemExit as end:
    heavy = [m for m in ("torch", "torchvision", "numpy", "sklearn", "matplotlib") if m in sys.modules]
    print(time.process_time(), file=sys.stderr)
    sys.exit("imports " + ", ".join(heavy) if heavy else end.code)
"""


@pytest.mark.parametrize("module", commands())
def test_help_answers_at_once(module: str, tmp_path: Path) -> None:
    """It takes half a second of processor time, imports nothing heavy and leaves no files."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-c", HELP.format(module)]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stderr) < 0.5
    assert done.stdout.startswith("usage: python -m ")
    assert not list(tmp_path.iterdir())
