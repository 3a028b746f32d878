"""Read many files with several processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from engine.system import ranks, terminal
from engine.system.signals import ignore

MANY = 5_000
"""Reading more pictures than this takes seconds."""
TOGETHER = 64
"""Files in one task of a process."""
PROCESSES = 8
"""The most processes: with more, the collecting process is the bottleneck."""
Found = TypeVar("Found")
Thing_co = TypeVar("Thing_co", covariant=True)


class SizedIterable(Protocol[Thing_co]):
    """An iterable with a length."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Thing_co]: ...


class _Each(Dataset, Generic[Found]):
    """The results of a function for each file."""

    def __init__(self, of: Callable[[Path], Found], files: list[tuple[Path, int]]) -> None:
        self.of, self.files = of, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Found:
        return self.of(self.files[index][0])


class _Leavable(Dataset):
    """A data set that refuses all items once `left` is set, so that its processes end before their next item.

    Processes ignore signals, and torch's DataLoader otherwise waits for the end of their batches.
    """

    def __init__(self, of: Dataset, workers: int) -> None:
        self.of, self.left = of, torch.zeros((), dtype=torch.uint8)
        if workers:
            self.left.share_memory_()

    def __len__(self) -> int:
        return len(self.of)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        if self.left.item():
            raise InterruptedError("nobody waits for this item")
        return self.of[index]


def each(
    of: Callable[[Path], Found], files: list[tuple[Path, int]], workers: int, label: str, doing: str = "reading"
) -> Iterator[Found]:
    """Yield a function's result for each file, in order; the function must be at module level.

    Args:
        workers: number of processes; 0 uses this process.
    """
    there = _Leavable(_Each(of, files), workers)
    read: Any = DataLoader(
        there, batch_size=TOGETHER, num_workers=workers, collate_fn=list, worker_init_fn=ignore,
        generator=torch.Generator(),
    )  # fmt: skip
    found = iter(announced(read, len(files), label, doing))  # it ends its processes when this variable is gone
    try:
        for some in found:
            yield from some
    finally:
        there.left.fill_(1)


def loaded(
    there: Dataset, batches: Sequence[Sequence[Any]], workers: int, pinned: bool, collate: Callable | None = None
) -> Iterator[Any]:
    """Yield the batches of a data set, in order.

    Args:
        batches: for each batch, the indices of its items.
        pinned: whether to use pinned memory, for a GPU.

    Raises:
        UserError: the error of an unreadable item, whichever process read it.
    """
    items = _Leavable(there, workers)
    loader: Any = DataLoader(
        items, batch_sampler=batches, num_workers=workers, pin_memory=pinned, collate_fn=collate,  # type: ignore[arg-type]
        worker_init_fn=ignore,  # Ctrl-C reaches the whole process group, but the batch in progress is still needed
        generator=torch.Generator(),  # else it draws from torch's global one, and a resumed run would draw once more
    )  # fmt: skip
    done, read = 0, iter(loader)  # it ends its processes when this variable is gone
    try:
        for batch in read:
            yield batch
            done += 1
    except RuntimeError:  # a worker's UserError arrives as RuntimeError; reading the batch here raises it again
        for item in batches[done] if done < len(batches) else ():
            there[item]
        raise
    finally:
        items.left.fill_(1)


def workers_for(count: int, allowed: int) -> int:
    """Return the number of processes for reading `count` files once: one for each core, or 0 for few files.

    Args:
        allowed: the user's --num_workers, of which only 0 has an effect.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(PROCESSES, cores // ranks.beside()) if allowed and count > MANY else 0


def announced(things: SizedIterable[Thing_co], pictures: int, label: str, doing: str = "reading") -> Iterable[Thing_co]:
    """Iterate over `things`; if there are many pictures, say so on stderr and show a progress bar on a terminal."""
    if pictures > MANY:
        print(f"{doing} {pictures:,} pictures of {label}", file=sys.stderr)
    return tqdm(things, doing, unit="picture", unit_scale=pictures / max(1, len(things)), delay=1, leave=False,
                disable=not terminal.is_interactive())  # fmt: skip
