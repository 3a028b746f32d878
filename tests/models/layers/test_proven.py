"""Products that a GPU library may not compute exactly; here a CPU stands in for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.layers import proven


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "_exact", {})


def wrong_in_fp32(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply like an algorithm that is exact only in fp64."""
    y = x @ weight.T
    return y if x.dtype == torch.float64 else y * (1 + 1e-6)


def test_what_is_exact_is_taken_and_what_is_not_is_done_in_fp64() -> None:
    x, weight = torch.randint(0, 256, (4, 9)).float(), torch.randint(-127, 128, (5, 9)).float()
    exact = (x.double() @ weight.double().T).float()
    assert not torch.equal(wrong_in_fp32(x, weight), exact)
    for times, good in ((torch.nn.functional.linear, True), (wrong_in_fp32, False)):
        for _ in range(2):
            assert torch.equal(proven.product(times, x, weight, times), exact)
        assert [*proven._exact.values()][-1] is good
    assert len(proven._exact) == 2


def test_another_shape_is_proven_anew_and_gradients_flow() -> None:
    for rows in (3, 4):
        x, weight = torch.ones(rows, 9, requires_grad=True), torch.ones(5, 9, requires_grad=True)
        proven.product(wrong_in_fp32, x, weight, 0).sum().backward()
        assert torch.equal(x.grad, torch.full((rows, 9), 5.0))
        assert torch.equal(weight.grad, torch.full((5, 9), float(rows)))
    assert len(proven._exact) == 2


def test_the_switches_of_tf32_are_put_back() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    def fails(x: Tensor, weight: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            assert torch.backends.cudnn.allow_tf32
            raise KeyError
        return x

    with pytest.raises(KeyError):
        proven.product(fails, torch.ones(2, 2), torch.ones(2, 2), "fails")
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
