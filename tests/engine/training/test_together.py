"""Batch norms and batches with several processes. One process plays two ranks, each with half of the batch."""

from __future__ import annotations

import copy
import os
import signal

import pytest
import torch
from torch import Tensor, nn

from engine.errors import UserError
from engine.system import ranks, signals
from engine.training import together


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_a_batch_norm_is_torchs_own(
    dtype: torch.dtype, affine: bool, tracks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one rank, reductions return its own numbers: values, gradients, running statistics; in eval mode, too."""
    monkeypatch.setattr(ranks, "reduced", lambda value, *_: value.clone())
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(7, affine=affine, track_running_stats=tracks)
    plain = plain.double() if dtype == torch.float64 else plain
    if affine:
        nn.init.normal_(plain.weight)
    other = copy.deepcopy(plain)
    x = (torch.randn(5, 7, 6, 6) * 3 + 10).to(dtype).contiguous(memory_format=torch.channels_last)
    found = []
    for norm, run in ((plain, plain), (other, lambda value: together._normed(other, value))):
        given = x.clone().requires_grad_()
        out = run(given)
        (out.double() ** 3).mean().backward()
        held = [*(p.grad for p in norm.parameters()), *norm.buffers()]
        found.append([out.detach(), given.grad, *held])
        norm.eval()
        found[-1].append(run(x).detach())
    near = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert len(found[0]) == 3 + 2 * affine + 3 * tracks
    for one, same in zip(*found, strict=True):
        assert one.dtype == same.dtype
        assert (one.double() - same.double()).norm() <= near * one.double().norm()


def test_one_number_a_channel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "reduced", lambda value, *_: value.clone())
    with pytest.raises(ValueError, match="one number a channel"):
        together._normed(nn.BatchNorm2d(3), torch.randn(1, 3, 1, 1))


@pytest.mark.parametrize(("batch", "fits"), [(8, True), (12, True), (4, False), (10, False), (6, False)])
def test_batches_that_cannot_be_shared_are_refused(batch: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 4)
    if fits:
        together.refuse(batch)
        return
    with pytest.raises(UserError, match=f"--train_batch_size {batch}: 4 processes") as fault:
        together.refuse(batch)
    assert fault.value.hint == "take a multiple of 4, at least 8"


def test_shares_are_neighbours_and_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 4)
    for length in (8, 9, 11, 3):
        parts = []
        for rank in range(4):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            parts.append([*range(length)][ranks.share(length)])
        assert [n for part in parts for n in part] == [*range(length)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_buffers_that_come_apart_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    other = {"1.running_mean": 0.5, "1.running_var": 2.0, "1.num_batches_tracked": 0.0}
    monkeypatch.setattr(ranks, "gathered", lambda mine: [mine, mine])
    together.compare_buffers(model)
    monkeypatch.setattr(ranks, "gathered", lambda mine: [mine, other])
    with pytest.raises(UserError, match=r"1\.running_mean differs between the 2 processes"):
        together.compare_buffers(model)


def test_a_signal_during_the_exchange_is_answered_by_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank wants to save while this one is told to stop."""
    saved = list[Tensor]()
    with signals.stopping(), signals.watching() as watch:

        def agreed(mine: int) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return 1

        monkeypatch.setattr(ranks, "agreed", agreed)
        watch.poll(lambda: saved.append(torch.zeros(())))
        monkeypatch.setattr(ranks, "agreed", lambda mine: mine)
        with pytest.raises(signals.Stopped):
            watch.poll(lambda: saved.append(torch.zeros(())))
    assert len(saved) == 2


def test_layers_in_a_program_that_torchrun_runs_for_its_own_ends_are_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ranks.ENVIRONMENT:
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "1")
    assert (ranks.started(), ranks.count()) == (2, 1)
