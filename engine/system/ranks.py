"""The processes that train one network together: ranks, started and numbered by torchrun.

Results of a batch are summed over ranks, so the number of ranks changes only the order of the sums. In a single process
the functions do nothing and do not import torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.system.terminal import stdout_to_stderr

if TYPE_CHECKING:
    from torch import Tensor

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables set by torchrun."""
PATIENCE = timedelta(minutes=30)
"""How long ranks wait for each other, as one may still read pictures or compile."""
_control: Any = None  # the process group for numbers on the CPU; None before `joined`


def started() -> int:
    """Return the number of processes that torchrun started, perhaps for another program that uses these layers."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in ENVIRONMENT) else 1


def count() -> int:
    """Return the number of ranks that train together; 1 before `joined`."""
    return started() if _control is not None else 1


def rank() -> int:
    """Return this process's rank, from 0."""
    return int(os.environ["RANK"]) if started() > 1 else 0


def local() -> int:
    """Return this process's rank on its machine, which is also the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if started() > 1 else 0


def beside() -> int:
    """Return the number of ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def is_first() -> bool:
    """Return whether this rank writes files and prints."""
    return rank() == 0


def share(length: int) -> slice:
    """Return this rank's part of `length` items, as a slice; the parts differ by at most one item."""
    each, more = divmod(length, count())
    first = rank() * each + min(rank(), more)
    return slice(first, first + each + (rank() < more))


def refuse(command: str) -> None:
    """Refuse torchrun for a command that runs in one process.

    Args:
        command: as it is started without torchrun.

    Raises:
        UserError: if torchrun started several processes (exit 2).
    """
    if started() > 1:
        raise UserError(
            f"{command} runs in one process",
            f"start it without torchrun: {command}",
        )


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Connect all ranks within the block, if there are several.

    Args:
        device: the value of --device.

    Raises:
        UserError: if this machine has fewer GPUs than ranks (exit 2).
    """
    global _control
    if started() == 1:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else each rank prints needless warnings
    import torch
    from torch import distributed

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu and local() >= torch.cuda.device_count():
        text = f"{local() + 1} processes on this machine, which has {torch.cuda.device_count()} GPUs"
        raise UserError(text, "start one process for each GPU: torchrun --nproc-per-node=gpu")
    if on_gpu:
        torch.cuda.set_device(local())
    store, *_ = next(distributed.rendezvous("env://", rank(), started()))
    with stdout_to_stderr():  # gloo in torch 2.10 prints on stdout that it is connected
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo", store=distributed.PrefixStore(f"round {_round(store)}", store), rank=rank(),
            world_size=started(), timeout=PATIENCE,
        )  # fmt: skip
        _control = distributed.new_group(backend="gloo") if on_gpu else distributed.group.WORLD
        wait()
    yield  # an exception skips the rest, which would wait for ranks that have ended
    wait()
    _control = None
    distributed.destroy_process_group()


def _round(store: Any) -> int:
    """Return how often the ranks have met in this store, which torchrun keeps over restarts with stale addresses.

    The first rank increments the count. The others wait until it exceeds the count that they last saw, which is in the
    store, too.
    """
    if is_first():
        return store.add("rounds", 1)
    seen, end = store.add(f"seen by {rank()}", 0), time.monotonic() + PATIENCE.total_seconds()
    while (now := store.add("rounds", 0)) <= seen and time.monotonic() < end:
        time.sleep(0.05)
    store.add(f"seen by {rank()}", now - seen)
    return now


def lost(fault: BaseException) -> bool:
    """Return whether an exception means that another rank has ended."""
    if started() == 1 or not isinstance(fault, RuntimeError):
        return False
    return any(word in str(fault) for word in ("gloo", "NCCL", "Connection closed by peer", "Connection reset"))


def wait() -> None:
    """Wait until all ranks have come here."""
    if count() > 1:
        from torch import distributed

        distributed.barrier(_control)


def everywhere(number: int) -> int:
    """Return the sum of all ranks' numbers."""
    return _of_all(number, "SUM")


def agreed(number: int) -> int:
    """Return the largest of all ranks' numbers."""
    return _of_all(number, "MAX")


def _of_all(number: int, how: str) -> int:
    if count() == 1:
        return number
    import torch

    return int(reduced(torch.tensor(number), how, _control))


def gathered(value: Any) -> list[Any]:
    """Return the values of all ranks, in the order of the ranks."""
    if count() == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, value, _control)
    return found


def reduced(value: Tensor, how: str, group: Any = None) -> Tensor:
    """Reduce a tensor over all ranks by "SUM", "MIN" or "MAX", without a gradient; sums.py has one with a gradient."""
    from torch import distributed

    found = value.detach().clone().contiguous()
    distributed.all_reduce(found, getattr(distributed.ReduceOp, how), group)
    return found
