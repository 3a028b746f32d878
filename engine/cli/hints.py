"""Hints for unknown words: another command's flag, another program's name for a flag, a misspelt flag, or a file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Sequence

from engine.cli.argtypes import nearest

ELSEWHERE = {
    "prune.train": "-sr --s --from_scratch",
    "prune.normal_regular and prune.gc": "--percent --normal_regular --importance --max_per_layer --spare --strict --bn_batches",
    "prune.train, quant.wqaq and quant.wbwtab": "--refine --lr --wd --resume --run_dir --eval_every --fused",
    "prune.train, quant.wqaq, quant.wbwtab and deploy.bench": "--profile",
    "prune.train, quant.wqaq, quant.wbwtab and deploy.run": "--evaluate",
    "prune.train, prune.normal_regular, prune.gc, quant.wqaq and quant.wbwtab": "--train_batch_size",
    "prune.train, quant.wqaq, quant.wbwtab and scripts.results": "--recipe",
    "prune.train, quant.wqaq, quant.wbwtab, scripts.results and scripts.combinations": "--epochs",
    "prune.train, quant.wqaq, quant.wbwtab, scripts.quickstart and scripts.results": "--precision",
    "quant.wqaq": "--quantizer --bn_fold",
    "quant.wqaq and quant.ptq": "--Wbits --Abits --q_type --per_channel --no-per_channel --sums",
    "quant.wqaq, quant.wbwtab and quant.ptq": "--keep_float",
    "quant.wbwtab, bn_merge and bn_merge.compare": "--W",
    "quant.wbwtab": "--A --scale --no-scale --ste --wste --gap --order --bn_momentum",
    "quant.ptq": "--calibrate --bias_correction --no-bias_correction",
    "quant.ptq and scripts.histograms": "--calibration_pictures",
    "bn_merge.compare": "--float64",
    "deploy.pack": "--inspect",
    "deploy.onnx": "--biases",
    "deploy.run": "--executor --top --score --draw",
    "deploy.bench": "--batches --without --picture",
    "deploy.bench and scripts.benchmark": "--seconds",
    "scripts.report": "--units --measure",
    "scripts.report and scripts.results": "--html",
    "scripts.summary": "--sensitivity",
    "scripts.curves": "--bits --folder",
    "scripts.histograms": "--layer",
    "scripts.results": "--rows --seeds --minutes --jobs --table --readme",
    "scripts.benchmark": "--networks --variants --what --batch --pictures --growth",
}
"""The commands with each rare flag. Reading it from the commands would need their imports; a test compares the two."""

OTHER_WORDS = {
    "output": "--save", "out": "--save", "o": "--save",
    "batch_size": "--train_batch_size", "learning_rate": "--lr", "weight_decay": "--wd",
}  # fmt: skip
"""What other programs call a flag, without its dashes."""

OTHER_VALUES = {"gpu": "cuda"}
"""What other programs call the value of a flag."""

FILES = ("--model", "--refine", "--from_scratch", "--evaluate", "--weights")
"""Flags for the file a command starts from; --weights takes a file of another program."""

REALLY_NEAR = 0.8
"""Cutoff for difflib: `--gap` and `--val` have ratio 0.6, `--perc` and `--percent` 0.8."""


def unknown(word: str, own: Collection[str]) -> str:
    """Return the hint for an unknown word of a command line; empty if none fits.

    Args:
        own: the command's flags.
    """
    takers = [option for option in FILES if option in own]
    if takers and not word.startswith("-") and (word.endswith(".pth") or os.path.exists(word)):
        return f"name its flag: {one_of([f'{option} {shlex.quote(word)}' for option in takers])}"
    if home := next((commands for commands, flags in ELSEWHERE.items() if word in flags.split()), None):
        return f"{word} is a flag of {home}"
    same = OTHER_WORDS.get(word.lstrip("-").replace("-", "_"), "") if word.startswith("-") else ""
    alike = [option for option in own if option.lower() == word.lower()]
    if found := same if same in own else next(iter(alike), None):
        return f"did you mean {found}?"
    return nearest(word, list(own), REALLY_NEAR)


def choice(value: str, known: Sequence[str], told: str) -> str:
    """Return the hint for a value that is not a choice: the most similar choice, else all of them.

    Args:
        told: the flag's help, which explains choices that are numbers.
    """
    near = nearest(OTHER_VALUES.get(value, value), known)
    return near or (told if known[0].isdecimal() else f"choose {one_of(known)}")


def one_of(words: Sequence[str]) -> str:
    """Join words with commas and a final `or`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
