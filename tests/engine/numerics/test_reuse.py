"""What an evaluation keeps: made once within a block, made anew whenever a tensor that it came from changed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.numerics import reuse as home
from engine.numerics.reuse import reused, reusing


def twice(source: Tensor) -> Tensor:
    """Return a fresh tensor, or the kept one."""
    return reused("twice", [source], lambda: source.detach() * 2)


@torch.no_grad()
def test_a_result_is_made_once_within_a_block_and_its_inner_blocks() -> None:
    x = torch.ones(3)
    assert twice(x) is not twice(x)
    with reusing():
        first = twice(x)
        with reusing():
            assert twice(x) is first
        assert twice(x) is first
    assert home._table.get() is None
    with reusing():
        assert twice(x) is not first


def _in_place(x: Tensor) -> None:
    x.add_(1)


def _unseen_by_versions(x: Tensor) -> None:
    x.data.add_(1)


def _other_data(x: Tensor) -> None:
    x.data = x.data + 1


def _by_numpy(x: Tensor) -> None:
    x.numpy()[0] += 1


@pytest.mark.parametrize("change", [_in_place, _unseen_by_versions, _other_data, _by_numpy])
@torch.no_grad()
def test_a_changed_tensor_counts_however_it_was_changed(change: Callable[[Tensor], None]) -> None:
    x = torch.ones(3)
    with reusing():
        twice(x)
        change(x)
        assert torch.equal(twice(x), x * 2)
        assert twice(x) is twice(x)


@torch.no_grad()
def test_another_type_or_number_of_sources_counts() -> None:
    x = torch.ones(3)
    with reusing():
        twice(x)
        assert twice(x.double()).dtype == torch.float64
        assert reused("twice", [x, x], lambda: "both") == "both"


def test_nothing_is_kept_where_a_gradient_may_be_needed() -> None:
    x = torch.ones(3, requires_grad=True)
    with reusing():
        assert twice(x) is not twice(x)


def _fails_within_a_block() -> None:
    with torch.no_grad(), reusing():
        twice(torch.ones(3))
        raise ZeroDivisionError


@torch.no_grad()
def test_beside_a_cpu_a_result_is_made_anew() -> None:
    x, made = torch.ones(3, device="meta"), []
    with reusing():
        for _ in range(2):
            reused("meta", [x], lambda: made.append(1))
    assert len(made) == 2


def test_an_error_frees_what_was_kept() -> None:
    with pytest.raises(ZeroDivisionError):
        _fails_within_a_block()
    assert home._table.get() is None


@torch.no_grad()
def test_another_thread_keeps_nothing() -> None:
    seen: list[object] = []
    with reusing():
        thread = threading.Thread(target=lambda: seen.append(home._table.get()))
        thread.start()
        thread.join()
    assert seen == [None]
