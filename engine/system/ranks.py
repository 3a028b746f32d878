"""The processes that train one network together: ranks, as torchrun starts and numbers them. For a process by itself all this is nothing.

What a batch gives is summed over ranks, so that their number changes nothing but the order of sums. Needs no torch where there is one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from engine.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells a process."""
PATIENCE = timedelta(minutes=30)
"""That ranks wait for each other: one may read pictures, or compile, while the others are ready."""
_control: Any = None  # the group for numbers on the CPU, once this one has met the others


def started() -> int:
    """How many torchrun has started. The layers of this project may be part of a program that torchrun runs for its own ends."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in ENVIRONMENT) else 1


def count() -> int:
    """How many have met to train together; 1 before `joined`."""
    return started() if _control is not None else 1


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ["RANK"]) if started() > 1 else 0


def local() -> int:
    """Its number on this machine, which is that of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if started() > 1 else 0


def beside() -> int:
    """Of all processes those of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def is_first() -> bool:
    """Whether this one writes files and speaks for all."""
    return rank() == 0


def share(length: int) -> slice:
    """Which of so many things are this rank's: neighbours, as many as others have, or one more."""
    each, more = divmod(length, count())
    first = rank() * each + min(rank(), more)
    return slice(first, first + each + (rank() < more))


def refuse(command: str) -> None:
    """Refuse torchrun for a command that one process runs.

    Raises:
        UserError: exit 2.
    """
    if started() > 1:
        raise UserError(
            f"{command} runs in one process",
            f"start it without torchrun: {command if command.startswith('python ') else f'python -m {command}'}",
        )


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Meet the others, if there are any.

    Args:
        device: as --device names it.

    Raises:
        UserError: exit 2 if this machine has fewer GPUs than ranks.
    """
    global _control
    if started() == 1:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # each rank would warn of what is as it should be
    import torch
    from torch import distributed

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu and local() >= torch.cuda.device_count():
        text = f"{local() + 1} processes on this machine, which has {torch.cuda.device_count()} GPUs"
        raise UserError(text, "start as many as there are GPUs: torchrun --nproc-per-node=gpu")
    if on_gpu:
        torch.cuda.set_device(local())
    store, *_ = next(distributed.rendezvous("env://", rank(), started()))
    with _said_apart():
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo", store=distributed.PrefixStore(f"round {_round(store)}", store), rank=rank(),
            world_size=started(), timeout=PATIENCE,
        )  # fmt: skip
        _control = distributed.new_group(backend="gloo") if on_gpu else distributed.group.WORLD
        wait()
    yield  # a fault goes past what follows: it would wait for those that are gone
    wait()
    _control = None
    distributed.destroy_process_group()


@contextmanager
def _said_apart() -> Iterator[None]:
    """Let what C++ prints go to stderr: gloo of torch 2.10 says on stdout that it is connected, where results are."""
    out = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(out, 1)
        os.close(out)


def _round(store: Any) -> int:
    """How often the ranks have met in this store: torchrun keeps it over restarts, with addresses of processes that are gone.

    The first rank counts; another one waits until that number has passed what it has seen itself, which it keeps there as well.
    """
    if is_first():
        return store.add("rounds", 1)
    seen, end = store.add(f"seen by {rank()}", 0), time.monotonic() + PATIENCE.total_seconds()
    while (now := store.add("rounds", 0)) <= seen and time.monotonic() < end:
        time.sleep(0.05)
    store.add(f"seen by {rank()}", now - seen)
    return now


def lost(fault: BaseException) -> bool:
    """Whether a fault is that another rank has ended."""
    if started() == 1 or not isinstance(fault, RuntimeError):
        return False
    return any(word in str(fault) for word in ("gloo", "NCCL", "Connection closed by peer", "Connection reset"))


def wait() -> None:
    """Wait until all have come here."""
    if count() > 1:
        from torch import distributed

        distributed.barrier(_control)


def everywhere(number: int) -> int:
    """The sum of a number that each rank has."""
    return _of_all(number, "SUM")


def agreed(number: int) -> int:
    """The largest of what the ranks say."""
    return _of_all(number, "MAX")


def _of_all(number: int, how: str) -> int:
    if count() == 1:
        return number
    import torch

    return int(reduced(torch.tensor(number), how, _control))


def gathered(value: Any) -> list[Any]:
    """What each rank has, on the CPU, in their order."""
    if count() == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, value, _control)
    return found


def reduced(value: Tensor, how: str, group: Any = None) -> Tensor:
    """A tensor of all ranks, reduced as distributed.ReduceOp says: "SUM", "MIN", "MAX". Without a gradient: sums.py has it."""
    from torch import distributed

    found = value.detach().clone().contiguous()
    distributed.all_reduce(found, getattr(distributed.ReduceOp, how), group)
    return found


def seed(numbers: tuple[int, ...]) -> None:
    """Let torch's own random numbers, those of dropout, depend on the place in a run and on the rank alone."""
    if count() > 1:
        import torch

        mixed = 0
        for number in (*numbers, rank()):
            mixed = mixed * 1_000_003 + number
        torch.default_generator.manual_seed(mixed % 2**63)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed(mixed % 2**63)
