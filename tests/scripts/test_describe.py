"""A table row's description of a network's stages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.checkpoint import transforms
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.provenance import Provenance
from engine.data.info import DataInfo
from quant.quantizer_spec import quantizer
from quant.spec import QuantSpec, affine_spec
from scripts import describe
from tests.conftest import NARROW

TRAIN, SPARSE = {"stage": "train", "epochs": 1}, {"stage": "train", "epochs": 1, "s": 1e-4}
HALF = {"stage": "prune", "percent": 0.5, "base": 1, "cfg_before": [96, 80, 48, *[96] * 5]}
EIGHTS = {"stage": "prune", "percent": 0.3, "base": 8, "cfg_before": [8] * 8}
REFINE, SCRATCH = {"stage": "refine", "epochs": 1}, {**TRAIN, "from_scratch": True}


def nin(cfg: list[int], dicts: list[dict]) -> Checkpoint:
    """Return a checkpoint with this history, given as a file's dicts."""
    data, stages = DataInfo.unknown(10), transforms.read(dicts)
    return Checkpoint("nin", {"classes": 10}, cfg, {}, stages, data, Metrics(0.0), Provenance())


@pytest.mark.parametrize(
    ("transforms", "kind", "remarks"),
    [
        ([TRAIN], "nin (cfg 8,8,8,8,8,8,8,8) float", "full precision"),
        (
            [SPARSE, HALF, REFINE, EIGHTS, {**REFINE, "s": 1e-4}, REFINE],
            "nin (1/2 width) sparse, pruned 50 %, refined, pruned 30 % to multiples of 8, refined, sparse, refined",
            f"cfg {NARROW}",
        ),
        ([SCRATCH], "nin (cfg 8,8,8,8,8,8,8,8) from scratch", "full precision"),  # a file that says no more
        ([{**SCRATCH, "pruned": []}], "nin (cfg 8,8,8,8,8,8,8,8) from scratch", "full precision"),
        (
            [{**SCRATCH, "pruned": [HALF], "s": 1e-4}],
            "nin (1/2 width) widths of pruned 50 %, from scratch, sparse",
            f"cfg {NARROW}",
        ),
        (
            [{**SCRATCH, "pruned": [HALF, EIGHTS]}],
            "nin (1/2 width) widths of pruned 50 % and pruned 30 % to multiples of 8, from scratch",
            f"cfg {NARROW}",
        ),
    ],
)
def test_a_row_says_what_was_done(transforms: list[dict], kind: str, remarks: str) -> None:
    checkpoint = nin([8] * 8, transforms)
    assert (describe.kind(checkpoint), describe.remarks(checkpoint)) == (kind, remarks)


def test_layers_of_your_network_that_stay_float_are_counted() -> None:
    for kept, words in (((), ""), (("a",), "; 1 layer float"), (("a", "b"), "; 2 layers float")):
        checkpoint = replace(
            nin([8], [quantized(replace(affine_spec(8, 8, 1, True), exceptions=kept))]), arch="my_net:net"
        )
        assert describe.remarks(checkpoint) == f"every layer quantized, the picture not{words}"


def test_float_ends_of_your_network_are_said_once() -> None:
    spec = QuantSpec(quantizer("b"), quantizer("b"), exceptions=("stem", "fc"))
    checkpoint = replace(nin([8], [quantized(spec)]), arch="my_net:net")
    assert describe.remarks(checkpoint) == "W with scale; ste ste; cbap; 2 layers float, first and last among them"


def quantized(spec: QuantSpec) -> dict:
    return {"stage": "quantize", "epochs": 1, "spec": spec.to_dict()}


@pytest.mark.parametrize(
    ("spec", "kind", "remarks"),
    [
        (affine_spec(8, 8, 1, False), "int8_q1_fold0", "every layer quantized, the picture not"),
        (affine_spec(8, 8, 1, True), "int8_q1_fold1", "every layer quantized, the picture not"),
        (affine_spec(8, 8, 1, False, per_channel=False), "int8_q1_fold0_tensor", "every layer quantized, the picture not"),
        (QuantSpec(quantizer("b"), quantizer("b", ste="saturate"), order="bacp"), "wbab", "W with scale; first and last layer float"),
        (
            QuantSpec(quantizer("t", scale=False, ste="saturate", gap=True), quantizer("b", ste="soft")),
            "wtab", "W without scale; gap; wste saturate; ste soft; cbap; first and last layer float",
        ),
    ],
)  # fmt: skip
def test_a_row_says_how_it_was_quantized(spec: QuantSpec, kind: str, remarks: str) -> None:
    checkpoint = nin([192, 160, 96, 192, 192, 192, 192, 192], [quantized(spec)])
    assert (describe.kind(checkpoint), describe.remarks(checkpoint)) == (f"nin {kind}", remarks)


@pytest.mark.parametrize(
    ("spec", "more", "kind"),
    [
        (affine_spec(8, 8, 1, True), {}, "int8_q1 ptq kl"),
        (affine_spec(4, 8, 0, True, per_channel=False), {"bias_correction": True}, "intw4a8_q0_tensor ptq kl, biases corrected"),
        (replace(affine_spec(8, 8, 1, True), sums="int8"), {}, "int8_q1_sums ptq kl"),
    ],
)  # fmt: skip
def test_calibration_trains_nothing_so_nothing_was_folded_in_training(spec: QuantSpec, more: dict, kind: str) -> None:
    stage = {"stage": "quantize", "spec": spec.to_dict(), "calibrate": "kl", "pictures": 512, **more}
    checkpoint = nin([192, 160, 96, 192, 192, 192, 192, 192], [stage])
    assert describe.kind(checkpoint) == f"nin {kind}"
    assert checkpoint.history[-1].to_dict() == stage  # the file keeps the spec
