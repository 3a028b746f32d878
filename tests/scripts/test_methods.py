"""A network's method is one word and one colour, the same in every picture."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Calibrate, Merge, Prune, Quantize, Stage, Train
from engine.checkpoint.provenance import Provenance
from engine.data.info import DataInfo
from quant.quantizer_spec import QuantizerSpec
from quant.spec import QuantSpec
from scripts import methods
from scripts.ladder import steps
from scripts.ladder.rows import ROWS, LadderRow


def test_every_row_of_the_ladder_has_a_method_with_a_colour_of_its_own() -> None:
    found = {row.name: methods.of_row(row.name) for row in ROWS}
    assert set(found.values()) == set(methods.METHODS) - {"affine"}
    assert {name: found[name] for name in ("prune50_wtab", "wbab", "w8a8", "ptq_kl", "lsq_w2a2", "gc_sparse")} == {
        "prune50_wtab": "ternary and binary", "wbab": "ternary and binary", "w8a8": "DoReFa", "ptq_kl": "INT8",
        "lsq_w2a2": "LSQ", "gc_sparse": "float",
    }  # fmt: skip
    assert [methods.of_row(name) for name in ("new_row", "winograd", "ninja")] == ["new", "winograd", "ninja"]
    assert (methods.of_row("prune30_wtab"), methods.of_row("prune30")) == ("ternary and binary", "pruned")
    assert len(set(methods.colours(["new"]).values())) == 8
    assert methods.colours(["new"])["INT8"] == methods.colours([])["INT8"]
    assert list(methods.markers([f"new{n}" for n in range(5)], "ox").values()) == ["o"] * 11 + ["x"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_method_of_a_row_is_what_its_commands_do(row: LadderRow) -> None:
    lines = [step.command for step in steps.chain(row.step)]
    last = next((line for line in reversed(lines) if line.startswith("quant.")), "")
    pruned = any(re.match(r"prune\.(normal_regular|gc)", line) for line in lines)
    done = {
        "quant.wbwtab": "ternary and binary", "--quantizer lsq": "LSQ", "--q_type": "INT8", "quant.ptq": "INT8",
        "quant.wqaq": "DoReFa", "": "pruned" if pruned else "float",
    }  # fmt: skip
    assert methods.of_row(row.name) == next(method for word, method in done.items() if word in last)


PLAIN = Checkpoint("nin", {"classes": 10}, [8] * 8, {}, (), DataInfo.unknown(10), Metrics(0.0), Provenance())


def quantized(kind: str, bits: int, inputs: int = 32) -> QuantSpec:
    return QuantSpec(QuantizerSpec(kind, bits), QuantizerSpec(kind, inputs) if inputs < 32 else QuantizerSpec())


@pytest.mark.parametrize(
    ("stages", "method"),
    [
        ([Train(epochs=1)], "float"),
        ([Train(epochs=1), Prune(percent=0.5, base=1, cfg_before=[8])], "pruned"),
        ([Prune(percent=0.5, base=1, cfg_before=[8]), Quantize(spec=quantized("dorefa", 4).to_dict(), epochs=1)], "DoReFa"),
        ([Quantize(spec=quantized("binary", 1).to_dict(), epochs=1), Merge()], "ternary and binary"),
        ([Calibrate(spec=quantized("affine", 8).to_dict(), method="kl")], "INT8"),
        ([Calibrate(spec=quantized("affine", 8, 8).to_dict(), method="kl")], "INT8"),
        ([Calibrate(spec=quantized("affine", 4, 4).to_dict(), method="kl")], "affine"),
        ([Calibrate(spec=quantized("affine", 4, 8).to_dict(), method="kl")], "affine"),
        ([Quantize(spec=QuantSpec(QuantizerSpec(), QuantizerSpec("lsq", 4)).to_dict(), epochs=1)], "LSQ"),
    ],
)  # fmt: skip
def test_the_method_of_a_file_is_its_last_quantizer(stages: list[Stage], method: str) -> None:
    assert methods.of_checkpoint(replace(PLAIN, history=tuple(stages))) == method
