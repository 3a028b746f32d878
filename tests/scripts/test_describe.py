"""What a row of a table says of the stages that a network has been through."""

from __future__ import annotations

import pytest

from scripts import describe
from tests.conftest import NARROW

TRAIN, SPARSE = {"stage": "train", "epochs": 1}, {"stage": "train", "epochs": 1, "s": 1e-4}
HALF = {"stage": "prune", "percent": 0.5, "base": 1, "cfg_before": [96, 80, 48, *[96] * 5]}
EIGHTS = {"stage": "prune", "percent": 0.3, "base": 8, "cfg_before": [8] * 8}
REFINE, SCRATCH = {"stage": "refine", "epochs": 1}, {**TRAIN, "from_scratch": True}


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
    content = {"arch": "nin", "cfg": [8] * 8, "transforms": transforms, "metrics": {}}
    assert (describe.kind(content), describe.remarks(content)) == (kind, remarks)
