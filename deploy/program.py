"""A program: a network as a flat list of typed operations with known shapes. All executors and exporters read programs.

deploy.lowering makes programs, deploy.reference defines what they compute, deploy.description stores them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy.operations.base import FARTHEST, MOST, MOST_AXES, Operation, Shape, Value, short, single

if TYPE_CHECKING:
    from torch import Tensor

MOST_OPERATIONS = 100_000


@dataclass(frozen=True, eq=False)
class Program:
    """A network for an engine. Value 0 is the picture, value i + 1 the result of operation i; the last is the answer.

    The picture is fp32(fp32(fp32(byte) / 255) - mean) / std, channel by channel; engine.data.augment makes grey pictures.

    Args:
        picture: channels, rows, columns.
        mean, std: of each channel, of pixels in [0, 1].

    Raises:
        ValueError: naming the operation, if the parts do not fit together.
    """

    operations: tuple[Operation, ...]
    picture: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    values: tuple[Value, ...] = field(init=False, default=())
    """The shape and grid of each value."""

    def __post_init__(self) -> None:
        if len(self.picture) != 3 or not all(1 <= n <= FARTHEST for n in self.picture):
            raise ValueError(
                f"pictures of shape {short(self.picture)}, not (channels, rows, columns) from 1 to {FARTHEST}"
            )
        if math.prod(self.picture) > MOST:
            raise ValueError(f"pictures of shape {self.picture} have more than {MOST:,} numbers")
        if not len(self.mean) == len(self.std) == self.picture[0] or not all(s > 0 and single(s) for s in self.std):
            raise ValueError(
                f"mean {short(self.mean)} and std {short(self.std)} of {self.picture[0]} channels: each channel needs one "
                "mean, and one std above 0 in fp32"
            )
        if not all(map(single, self.mean)):
            raise ValueError(f"mean {short(self.mean)} holds a number that fp32 cannot hold")
        if not 1 <= len(self.operations) <= MOST_OPERATIONS:
            raise ValueError(f"{len(self.operations)} operations, not 1 to {MOST_OPERATIONS:,}")
        object.__setattr__(self, "values", self._values())

    def _values(self) -> tuple[Value, ...]:
        found = [Value(self.picture)]
        for number, operation in enumerate(self.operations):
            try:
                value = _checked(operation, found)
            except ValueError as fault:
                kind = type(operation).__name__
                raise ValueError(f"operation {number} ({kind} {_plain(operation.name)}): {fault}") from fault
            found.append(value)
        read = {source for operation in self.operations for source in operation.sources}
        if unread := sorted({*range(1, len(found) - 1)} - read):
            raise ValueError(f"operation {unread[0] - 1}: no operation reads its value")
        if found[-1].grid is not None:
            raise ValueError("the answer is in codes, not fp32 numbers")
        return tuple(found)

    @property
    def answer(self) -> Shape:
        return self.values[-1].shape

    def pictures(self, x: Tensor) -> Tensor:
        """Return normalised pictures, (N, *picture), as fp32 on the CPU; every executor begins with it.

        Raises:
            ValueError: for pictures of another shape or type, and for a number that is not finite, of which codes would be
                made up.
        """
        if tuple(x.shape[1:]) != self.picture:
            raise ValueError(f"pictures of shape {tuple(x.shape[1:])}, not {self.picture}")
        if not x.is_floating_point():
            raise ValueError(f"pictures of {x.dtype}, not normalised floating-point numbers")
        found = x.detach().cpu().float()
        # a sum takes a fifth of the time that isfinite takes, or less, but may overflow
        if not math.isfinite(found.sum().item()) and not found.isfinite().all():
            raise ValueError("pictures with a number that is not finite")
        return found


def _plain(name: str) -> str:
    """Return a name from a file, escaped and shortened for a message."""
    return name.encode("unicode_escape").decode()[:60]


def _checked(operation: Operation, known: list[Value]) -> Value:
    sources, reads = operation.sources, operation.reads
    if len(sources) != reads if reads is not None else not sources:
        raise ValueError(f"it reads {len(sources)} values, not {'1 or more' if reads is None else reads}")
    if not all(0 <= source < len(known) for source in sources):
        raise ValueError(f"it reads values {short(sources)}, not from 0 to {len(known) - 1}")
    given = [known[source] for source in sources]
    if not operation.takes_codes and any(value.grid is not None for value in given):
        raise ValueError("it reads codes, which only layers, Pad and Decode can read")
    value = operation.value(*given)
    if math.prod(value.shape) > MOST or len(value.shape) > MOST_AXES:
        raise ValueError(f"a value of shape {short(value.shape)} has more than {MOST:,} numbers or {MOST_AXES} axes")
    return value
