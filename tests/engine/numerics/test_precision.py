"""The precision that a flag selects, and where it is in force."""

from __future__ import annotations

import pytest
import torch

from engine.errors import UserError
from engine.numerics import precision

CPU = torch.device("cpu")


def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, wanted in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "has_bf16", lambda _, has=has: has)
        assert precision.resolved("auto", CPU) == wanted
        assert precision.resolved("exact", CPU) == "exact"
        assert precision.resolved("fp32", CPU) == "fp32"


def test_bf16_by_name_is_not_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    with pytest.raises(UserError, match="--precision bf16: this cpu has no bf16 arithmetic") as fault:
        precision.resolved("bf16", CPU)
    assert fault.value.code == 2


def test_what_is_in_force_ends_with_its_block() -> None:
    def fails() -> None:
        with precision.computing("bf16"), precision.computing("exact"):
            assert precision.in_force() == "exact"
            raise KeyError

    assert precision.in_force() == "fp32"
    with pytest.raises(KeyError):
        fails()
    assert precision.in_force() == "fp32"


@pytest.mark.parametrize(
    ("how", "codes", "casts"), [("bf16", False, True), ("bf16", True, False), ("exact", False, False)]
)
def test_networks_without_codes_alone_are_cast(how: str, codes: bool, casts: bool) -> None:
    """In quantized networks, computations without codes stay in fp32."""
    with precision.training(how, CPU, codes):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if casts else torch.float32)
        assert precision.in_force() == how


@pytest.mark.parametrize(
    ("how", "device", "has", "wanted"),
    [
        ("fp32", "cpu", True, False), ("bf16", "cpu", True, True), ("bf16", "cuda", True, True),
        ("exact", "cpu", True, True), ("exact", "cpu", False, False), ("exact", "cuda", True, False),
    ],
)  # fmt: skip
def test_loops_return_codes_in_bf16_where_what_reads_them_uses_it(
    how: precision.Precision, device: str, has: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: has)
    with precision.computing(how):
        assert precision.codes_in_bf16(torch.device(device)) == wanted
