"""Many files, gone through by several processes."""

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
"""Pictures, whose reading takes seconds."""
TOGETHER = 64
"""Files that a process goes through at a time."""
PROCESSES = 8
"""More processes are no faster: the one that collects is the bottleneck."""
Found = TypeVar("Found")
Thing_co = TypeVar("Thing_co", covariant=True)


class Parts(Protocol[Thing_co]):
    """What there is a number of, to be gone through."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Thing_co]: ...


class _Each(Dataset, Generic[Found]):
    """What a function gives for each file."""

    def __init__(self, of: Callable[[Path], Found], files: list[tuple[Path, int]]) -> None:
        self.of, self.files = of, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Found:
        return self.of(self.files[index][0])


def each(
    of: Callable[[Path], Found], files: list[tuple[Path, int]], workers: int, label: str, doing: str = "reading"
) -> Iterator[Found]:
    """What a function of the module level gives for each file, in their order.

    Args:
        workers: processes; 0: this one.
    """
    read: Any = DataLoader(
        _Each(of, files), batch_size=TOGETHER, num_workers=workers, collate_fn=list, worker_init_fn=ignore,
        generator=torch.Generator(),
    )  # fmt: skip
    for found in announced(read, len(files), label, doing):
        yield from found


def loaded(
    there: Dataset, batches: Sequence[Sequence[Any]], workers: int, pinned: bool, collate: Callable | None = None
) -> Iterator[Any]:
    """Batches of a data set, in order.

    Args:
        batches: what each item of a batch is asked for by.
        pinned: whether they go to a GPU.

    Raises:
        UserError: that of an item that cannot be read, whichever process has met it.
    """
    loader: Any = DataLoader(
        there, batch_sampler=batches, num_workers=workers, pin_memory=pinned, collate_fn=collate,  # type: ignore[arg-type]
        worker_init_fn=ignore,  # a terminal signals the whole group, and the batch under way is still wanted
        generator=torch.Generator(),  # else it draws from torch's own, once more in a run that was resumed
    )  # fmt: skip
    done = 0
    try:
        for batch in loader:
            yield batch
            done += 1
    except RuntimeError:  # a worker's UserError arrives as this; the items of its batch say what it was
        for item in batches[done] if done < len(batches) else ():
            there[item]
        raise


def workers_for(count: int, allowed: int) -> int:
    """How many processes read so many files once: as many as there are cores for, where it takes seconds.

    Args:
        allowed: by the user; 0 alone counts.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(PROCESSES, cores // ranks.beside()) if allowed and count > MANY else 0


def announced(things: Parts[Thing_co], pictures: int, label: str, doing: str = "reading") -> Iterable[Thing_co]:
    """What is read one after the other: many pictures are announced, and counted on a terminal."""
    if pictures > MANY:
        print(f"{doing} {pictures:,} pictures of {label}", file=sys.stderr)
    return tqdm(things, doing, unit="picture", unit_scale=pictures / max(1, len(things)), delay=1, leave=False,
                disable=not terminal.is_interactive())  # fmt: skip
