"""Random numbers repeat from a seed, and code in between moves no generator, on no device."""

from __future__ import annotations

import pytest
import torch

from engine.numerics import random_state


def test_random_numbers_repeat_and_the_generator_goes_on_where_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    with random_state.kept(0):
        one = torch.rand(3)
    with random_state.kept(0):
        assert torch.equal(one, torch.rand(3))
    with random_state.kept():
        assert torch.equal(expected, torch.rand(4))  # no seed: the numbers that were next
    assert torch.equal(expected, torch.rand(4))


def test_the_generator_is_restored_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="negative"), random_state.kept(1):
        torch.rand(2) + torch.rand(-1)
    assert torch.equal(before, torch.get_rng_state())


def test_gpus_that_are_not_in_use_get_no_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed would queue its seed for the moment when a GPU is first used."""
    queued: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", queued.append)
    with random_state.kept(7):
        random_state.seed(8)
    assert not queued


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_in_use_is_seeded_and_restored() -> None:
    torch.cuda.manual_seed_all(3)
    before = torch.cuda.get_rng_state()
    with random_state.kept(0):
        one = torch.rand(3, device="cuda")
    with random_state.kept(0):
        assert torch.equal(one, torch.rand(3, device="cuda"))
    assert torch.equal(before, torch.cuda.get_rng_state())
