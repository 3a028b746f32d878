"""Stages of a history: what they refuse, their words, and that a file's dict is read and written unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from engine.checkpoint import transforms
from engine.checkpoint.history import Calibrate, Merge, Original, Prune, Quantize, Refine, Stage, Train, prunings

PRUNED = {"stage": "prune", "percent": 0.5, "base": 8, "achieved": 0.48, "cfg_before": [8, 8]}
CHOSEN = {**PRUNED, "importance": "l1", "max_per_layer": 0.75, "spare": ["stem", "layer1.*"]}
DICTS: list[tuple[dict[str, Any], Stage, str]] = [
    ({"stage": "train", "epochs": 2}, Train(epochs=2), ""),
    ({"stage": "train", "s": 1e-4, "epochs": 2, "val": 9}, Train(s=1e-4, epochs=2, val=9), "sparse"),
    (
        {"stage": "train", "from_scratch": True, "pruned": [PRUNED], "epochs": 1},
        Train(from_scratch=True, pruned=(Prune(percent=0.5, base=8, achieved=0.48, cfg_before=[8, 8]),), epochs=1),
        "widths of pruned 50 % to multiples of 8, from scratch",
    ),
    ({"stage": "refine", "epochs": 1}, Refine(epochs=1), "refined"),
    (PRUNED, Prune(percent=0.5, base=8, achieved=0.48, cfg_before=[8, 8]), "pruned 50 % to multiples of 8"),
    (
        CHOSEN,
        Prune(
            percent=0.5,
            base=8,
            achieved=0.48,
            cfg_before=[8, 8],
            importance="l1",
            max_per_layer=0.75,
            spare=["stem", "layer1.*"],
        ),
        "pruned 50 % to multiples of 8, by l1, at most 75 % a layer, without stem, layer1.*",
    ),
    ({"stage": "quantize", "spec": {"a": 1}, "epochs": 3}, Quantize(spec={"a": 1}, epochs=3), ""),
    (
        {"stage": "quantize", "spec": {}, "calibrate": "kl", "pictures": 7},
        Calibrate(spec={}, method="kl", pictures=7),
        "ptq kl",
    ),
    ({"stage": "merge"}, Merge(), "merged"),
    ({"stage": "original"}, Original(), "original file"),
    ({"stage": "original", "elsewhere": True}, Original(elsewhere=True), "weights from elsewhere"),
]


@pytest.mark.parametrize(("content", "stage", "words"), DICTS, ids=lambda value: str(value)[:30])
def test_a_stage_and_its_dict_say_the_same(content: dict[str, Any], stage: Stage, words: str) -> None:
    (found,) = transforms.read([content])
    assert found == stage
    assert list(stage.to_dict().items()) == list(content.items()), "old files have this order"
    assert stage.words() == words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"stage": "train", "s": 0.0001, "epochs": 6}, "s 0.0001, epochs 6"),
        (
            {"stage": "train", "from_scratch": True, "pruned": [PRUNED], "epochs": 1},
            "from_scratch True, pruned (stage prune, percent 0.5, base 8, achieved 0.48, cfg_before 8,8), epochs 1",
        ),
        ({"stage": "merge"}, ""),
        (
            {"stage": "quantize", "spec": {"a": {"kind": "x", "bits": 4, "gap": False}, "b": ["c", "d"], "e": [], "f": None},
             "epochs": 3, "of": "a later program"},
            "spec (a (kind x, bits 4), b c,d), epochs 3, of a later program",
        ),
        ({**PRUNED, "percent": 0.0, "achieved": 0.0}, "percent 0.0, base 8, achieved 0.0, cfg_before 8,8"),
    ],
    ids=str,
)  # fmt: skip
def test_the_settings_of_a_stage_in_words(content: dict[str, Any], words: str) -> None:
    (found,) = transforms.read([content])
    assert found.settings_words() == words


def test_what_later_programs_add_is_written_again() -> None:
    content = {"by": "a later program", "stage": "refine", "epochs": 1, "rate": [1, 2]}
    (found,) = transforms.read([content])
    assert list(found.to_dict().items()) == list(content.items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"stage": "prune", "percent": "half", "base": 1, "cfg_before": [8]}, "percent 'half' is not a finite number"),
        ({"stage": "prune", "percent": 0.5, "base": 1.5, "cfg_before": [8]}, "base 1.5 is not an integer"),
        (
            {"stage": "prune", "percent": 0.5, "base": 1, "cfg_before": [0]},
            "cfg_before is not a list of channel counts",
        ),
        ({"stage": "prune", "percent": 2**1024, "base": 1, "cfg_before": [8]}, "is not a finite number"),
        ({"stage": "prune", "percent": float("nan"), "base": 1, "cfg_before": [8]}, "is not a finite number"),
        ({"stage": "prune", "percent": 7, "base": 1, "cfg_before": [8]}, r"percent 7 is not in \[0, 1\)"),
        ({"stage": "prune", "percent": 1.0, "base": 1, "cfg_before": [8]}, r"percent 1.0 is not in \[0, 1\)"),
        ({"stage": "prune", "percent": -0.1, "base": 1, "cfg_before": [8]}, r"percent -0.1 is not in \[0, 1\)"),
        (
            {"stage": "prune", "percent": 0.5, "base": -3, "cfg_before": [8]},
            "base -3 is not an integer of at least 1",
        ),
        ({**PRUNED, "achieved": "abc"}, "achieved 'abc' is not a finite number"),
        ({**PRUNED, "importance": 3}, "importance is not a name"),
        ({**PRUNED, "max_per_layer": 0}, r"max_per_layer '0' is not in \(0, 1\]"),
        ({**PRUNED, "max_per_layer": "most"}, r"max_per_layer 'most' is not in \(0, 1\]"),
        ({**PRUNED, "spare": "stem"}, "spare is not a list of names"),
        ({**PRUNED, "spare": [1]}, "spare is not a list of names"),
        ({**PRUNED, "achieved": 48.0}, r"achieved 48.0 is not in \[0, 1\)"),
        ({"stage": "refine", "s": -5, "epochs": 1}, "s -5 is not above 0"),
        ({"stage": "train", "s": 0.0, "epochs": 1}, "s 0.0 is not above 0"),
        ({"stage": "refine", "s": [1], "epochs": 1}, "is not a finite number"),
        ({"stage": "train", "s": "strong", "epochs": 1}, "s 'strong' is not a finite number"),
        ({"stage": "train", "from_scratch": 1}, "from_scratch is neither true nor false"),
        ({"stage": "prune", "percent": 0.5}, "its stage prune lacks its settings"),
        ({"stage": "train", "epochs": 0}, "epochs 0 is not an integer of at least 1"),
        ({"stage": "train", "epochs": 1, "val": -1}, "val -1 is not an integer of at least 0"),
        ({"stage": "train", "pruned": [{"stage": "merge"}]}, "`pruned` holds stages other than prunings"),
        ({"stage": "quantize", "spec": "w4a4"}, "is not a dict of settings"),
        ({"stage": "quantize"}, "its stage quantize lacks its settings"),
        (
            {"stage": "quantize", "spec": {}, "calibrate": "kl", "pictures": "many"},
            "pictures 'many' is not an integer",
        ),
        ({"stage": "quantize", "spec": {}, "calibrate": "kl", "pictures": 0}, "pictures 0 is not an integer"),
        ({"stage": "distil"}, "a stage that this version does not know: 'distil'"),
        ("merge", "not a list of stages"),
    ],
    ids=str,
)
def test_what_no_stage_says_is_refused(content: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        transforms.read([content])
    with pytest.raises(ValueError, match="not a list of stages"):
        transforms.read(content)


@pytest.mark.parametrize(
    "content",
    [
        {"stage": "prune", "percent": 0.0, "base": 1, "achieved": 0.0, "cfg_before": [8]},
        {"stage": "prune", "percent": 0, "base": 1, "cfg_before": [8]},
        {"stage": "prune", "percent": 0.999, "base": 16, "achieved": 0.98, "cfg_before": [8]},
        {"stage": "refine", "s": None, "epochs": 1},
        {"stage": "quantize", "spec": {}, "calibrate": "kl", "pictures": None},
        {"stage": "quantize", "spec": {}, "calibrate": "kl", "pictures": 1},
    ],
    ids=str,
)
def test_what_stands_on_the_edge_is_read(content: dict[str, Any]) -> None:
    (found,) = transforms.read([content])
    assert found.to_dict() == content


def test_widths_come_from_every_pruning() -> None:
    first, second = (Prune(percent=p, base=1, cfg_before=[8, 8]) for p in (0.5, 0.25))
    control = Train(from_scratch=True, pruned=(first,), epochs=1)
    assert prunings((control, Refine(epochs=1), second)) == [first, second]
