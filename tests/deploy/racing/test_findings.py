"""What a race shows: a row for each contender, and where compression made nothing faster."""

from __future__ import annotations

from deploy.racing.base import Contender
from deploy.racing.clock import Timed
from deploy.racing.findings import Findings


def contender(name: str, compressed: bool, size: int | None = None) -> Contender:
    return Contender(name, lambda x: x, compressed, "how", size)


def took(**milliseconds: float) -> dict[str, Timed]:
    return {
        name.replace("_", ", "): Timed(each, 8 / each, 7 / each, 9 / each, 5) for name, each in milliseconds.items()
    }


EAGER, FLOAT, INT8 = contender("eager", False), contender("R, fp32", False, 4096), contender("R, int8", True, 1024)
FOUND = Findings(
    [EAGER, FLOAT, INT8],
    {1: took(eager=8, R_fp32=4, R_int8=2), 128: took(eager=8, R_fp32=4, R_int8=5)},
    {"R, int8": 0.975},
)


def test_each_contender_has_a_row() -> None:
    head, eager, plain, small = FOUND.table()
    assert head == ["", "network", "batch 1, ms", "times as fast", "batch 128, ms", "times as fast", "same answers",
                    "model, bytes", "runs by"]  # fmt: skip
    assert eager[:4] == ["eager", "float", "8.00", "1.00 (0.88 to 1.12)"]
    assert plain[-3:] == ["", "4,096", "how"]
    assert small == [
        "R, int8",
        "compressed",
        "2.00",
        "4.00 (3.50 to 4.50)",
        "5.00",
        "1.60 (1.40 to 1.80)",
        "97.5 %",
        "1,024",
        "how",
    ]
    assert "same answers" not in Findings([EAGER], {1: took(eager=8)}, {}).table()[0]


def test_batch_sizes_where_compression_makes_nothing_faster_are_told() -> None:
    assert FOUND.not_faster() == [
        "batch 128: compression made nothing faster here: R, int8 takes 5.00 ms, the float network in R, fp32 4.00 ms"
    ]
    assert Findings([EAGER], {1: took(eager=8)}, {}).not_faster() == []


def test_runtimes_that_are_faster_in_fp32_are_told() -> None:
    assert FOUND.slower() == [{"runtime": "R", "kind": "int8", "batch": 128, "milliseconds": 5, "fp32": 4}]
