"""Several processes train like one with the same batch: each has a share; gradients, statistics, ranges and scores are global."""

from __future__ import annotations

import json

import pytest

from tests.ranks.conftest import Together, ended

VARIANTS = ("float", "sparse", "DoReFa W8A8", "LSQ W4A4", "ternary", "INT8 folded")
"""Binary inputs are left out: a fresh network has numbers that differ from 0 only by the order of sums, and their signs vary."""


def results(together: Together, count: int, dtype: str, steps: int) -> dict[str, tuple[list[float], list[float]]]:
    code, out, err = ended(together(count, "tests.tools.ranked", dtype, str(steps), *VARIANTS))
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_losses_and_networks_are_equal(count: int, together: Together) -> None:
    """Compare 20 steps in float64: losses, penalties, right answers, the loss on the test pictures, and all final tensors."""
    alone, many = (results(together, n, "float64", 20) for n in (1, count))
    for variant in VARIANTS:
        for one, other in zip(alone[variant], many[variant], strict=True):
            assert other == pytest.approx(one, rel=1e-8, abs=1e-10), variant


@pytest.mark.slow
def test_a_first_step_in_fp32_is_equal_but_for_the_order_of_sums(together: Together) -> None:
    alone, many = (results(together, n, "float32", 1) for n in (1, 2))
    for variant in VARIANTS:
        assert many[variant][0][:3] == pytest.approx(alone[variant][0][:3], rel=1e-5), variant
