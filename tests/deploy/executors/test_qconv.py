"""The trust in this machine's int8 convolutions: tested once, reported in words, and never a reason to fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from deploy.executors.stock import Stock
from deploy.reference.run import run
from models.layers import qconv
from tests.deploy.quantized import lowered, merged, pictures


@pytest.fixture
def _afresh() -> Iterator[None]:
    """Forget the result of the check before and after a test."""
    qconv.trusted.cache_clear()
    yield
    qconv.trusted.cache_clear()


@pytest.mark.usefixtures("_afresh")
def test_it_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    trials = qconv._trials
    monkeypatch.setattr(qconv, "_trials", lambda: calls.append(1) or trials())
    first = qconv.trusted()
    assert isinstance(first, str)
    assert qconv.trusted() is first
    assert calls == [1]


@pytest.mark.usefixtures("_afresh")
@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([("one", True), ("another", True)], ""),
        ([("one", True), ("a 1x1 convolution", False), ("the rest", True)], "a 1x1 convolution is wrong on this processor"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(found: list[tuple[str, bool]], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qconv, "_trials", lambda: iter(found))
    assert qconv.trusted() == said
    if said:
        executor = Stock(lowered(merged("Residual", "w4a4")))
        assert (executor.integers, executor.how) == (False, f"fp32 arithmetic on codes: {said}")


@pytest.mark.usefixtures("_afresh")
@pytest.mark.parametrize("fault", [AttributeError, RuntimeError, TypeError])
def test_without_the_private_operations_layers_run_in_fp32(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise fault("'_OpNamespace' 'onednn' object has no attribute 'qconv_prepack'")

    monkeypatch.setattr(qconv.QConv, "__init__", gone)
    program, x = lowered(merged("Residual", "w4a4"), low_ends=False), pictures()
    executor = Stock(program)
    assert not executor.integers
    assert executor.how == f"fp32 arithmetic on codes: this PyTorch has other int8 convolutions ({fault.__name__})"
    torch.testing.assert_close(executor(x), run(program, x), rtol=1e-5, atol=1e-6)


def test_they_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qconv, "trusted", lambda: "")
    executor = Stock(lowered(merged("Residual", "w4a4")), integers=False)
    assert (executor.integers, executor.how) == (False, "fp32 arithmetic on codes: int8 convolutions are switched off")


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("_int8")
def test_a_run_warns_of_nothing() -> None:
    """PyTorch warns of functions that it will remove; the executor must not use any."""
    Stock(lowered(merged("Residual", "w4a4"), low_ends=False))(pictures())
