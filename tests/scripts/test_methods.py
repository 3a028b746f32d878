"""What a network was made by: a word and a colour, the same in every picture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Calibrate, Merge, Prune, Quantize, Stage, Train
from engine.checkpoint.provenance import Provenance
from engine.data.info import DataInfo
from quant.spec import QuantizerSpec, QuantSpec
from scripts import methods
from scripts.ladder.rows import ROWS


def test_every_row_of_the_ladder_has_a_method_with_a_colour_of_its_own() -> None:
    found = {row.name: methods.of_row(row.name) for row in ROWS}
    assert set(found.values()) == set(methods.METHODS)
    assert {name: found[name] for name in ("prune50_wtab", "wbab", "w8a8", "ptq_kl", "lsq_w2a2", "gc_sparse")} == {
        "prune50_wtab": "ternary and binary", "wbab": "ternary and binary", "w8a8": "DoReFa", "ptq_kl": "INT8",
        "lsq_w2a2": "LSQ", "gc_sparse": "float",
    }  # fmt: skip
    assert methods.of_row("new_row") == "new"
    assert len(set(methods.colours(["new"]).values())) == 7
    assert methods.colours(["new"])["INT8"] == methods.colours([])["INT8"]


PLAIN = Checkpoint("nin", {"classes": 10}, [8] * 8, {}, (), DataInfo.unknown(10), Metrics(0.0), Provenance())


def quantized(kind: str, bits: int) -> QuantSpec:
    return QuantSpec(QuantizerSpec(kind, bits), QuantizerSpec())


@pytest.mark.parametrize(
    ("stages", "method"),
    [
        ([Train(epochs=1)], "float"),
        ([Train(epochs=1), Prune(percent=0.5, base=1, cfg_before=[8])], "pruned"),
        ([Prune(percent=0.5, base=1, cfg_before=[8]), Quantize(spec=quantized("dorefa", 4).to_dict(), epochs=1)], "DoReFa"),
        ([Quantize(spec=quantized("binary", 1).to_dict(), epochs=1), Merge()], "ternary and binary"),
        ([Calibrate(spec=quantized("affine", 8).to_dict(), method="kl")], "INT8"),
        ([Quantize(spec=QuantSpec(QuantizerSpec(), QuantizerSpec("lsq", 4)).to_dict(), epochs=1)], "LSQ"),
    ],
)  # fmt: skip
def test_the_method_of_a_file_is_its_last_quantizer(stages: list[Stage], method: str) -> None:
    assert methods.of_checkpoint(replace(PLAIN, history=tuple(stages))) == method
