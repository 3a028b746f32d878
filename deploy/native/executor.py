"""`native`: run programs on the C++ engine. Every number equals the reference's."""

from __future__ import annotations

import ctypes
import math
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.executors.base import arithmetic
from deploy.native import steps
from deploy.native.compiler import engine
from deploy.native.layout import Place
from deploy.native.plan import plan
from deploy.program import Program
from deploy.reference.run import RULES


class Native:
    """A program on the CPU, with pictures in parallel on torch.get_num_threads() threads.

    Args:
        kernels: as in deploy.native.compiler.engine.

    Raises:
        Unavailable: if there is no engine; see deploy.native.compiler.
    """

    name = "native"

    def __init__(self, program: Program, kernels: str | None = None) -> None:
        self.program, self.engine = program, engine(kernels)
        self.plan = plan(program, self.engine.widths)
        self.how = f"{arithmetic(program)}, {self.engine.kernels}"
        if self.plan.by_reference:
            kinds = sorted({type(program.operations[number]).__name__ for number in self.plan.by_reference.values()})
            self.how += f"; {', '.join(kinds)} by the reference"
        self.first, self.last = (self.plan.places[n].told() for n in (0, len(program.operations)))
        if (
            len(program.answer) == 2 or self.plan.places[len(program.operations)].in_order
        ):  # contiguous, as in the answer
            self.last.rows = 1
            self.last.channels = self.last.pitch = math.prod(program.answer)
        self.arenas: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.fault: BaseException | None = None
        self._busy = Lock()  # calls share the arenas, and ctypes lets other threads run meanwhile
        self.callback = steps.Callback(self._by_reference)

    def __call__(self, x: Tensor) -> Tensor:
        return self._run(x, max(torch.get_num_threads(), 1))

    def profile(self, x: Tensor) -> list[tuple[int, float]]:
        """Run pictures on one thread; return for each step the number of its operation and the seconds it took."""
        seconds = np.zeros(len(self.plan.steps))
        self._run(x, 1, seconds)
        return [*zip(self.plan.numbers, seconds.tolist(), strict=True)]

    def _run(self, x: Tensor, threads: int, seconds: NDArray[np.float64] | None = None) -> Tensor:
        pictures = self.program.pictures(x).contiguous()
        answers = torch.empty(len(pictures), *self.program.answer)
        with self._busy:
            self._make_room(threads)
            self.engine.library.mc_run(
                self.engine.which, self.plan.steps, len(self.plan.steps), ctypes.byref(self.first), ctypes.byref(self.last),
                self._begin, self.plan.arena, threads, pictures.data_ptr(), len(pictures), answers.data_ptr(), self.callback,
                None if seconds is None else seconds.ctypes.data,
            )  # fmt: skip
            if self.fault is not None:
                fault, self.fault = self.fault, None
                raise fault
        return answers

    def _make_room(self, threads: int) -> None:
        """Allocate an arena with the constants for each thread; it is kept between calls."""
        size = self.plan.arena
        if len(self.arenas) < threads * size + 64:
            self.arenas = np.zeros(threads * size + 64, np.uint8)
            self._begin = -(-self.arenas.ctypes.data // 64) * 64
            for thread in range(threads):
                for value, numbers in self.plan.constants:
                    _write(self.plan.places[value], self._begin + thread * size, numbers)

    @torch.no_grad()
    def _by_reference(self, number: int, arena: int) -> None:
        """Compute a step for one picture by the reference."""
        try:
            at = self.plan.by_reference[number]
            operation, value = self.program.operations[at], self.program.values[at + 1]
            kinds = [self.program.values[source] for source in operation.sources]
            given = [_read(self.plan.places[source], arena) for source in operation.sources]
            found = RULES[type(operation)](
                operation, kinds, value, 1, *(torch.from_numpy(each)[None] for each in given)
            )
            _write(self.plan.places[at + 1], arena, found[0].contiguous().numpy())
        except BaseException as fault:  # an exception cannot pass through C++
            self.fault = fault


def _memory(place: Place, arena: int) -> NDArray[Any]:
    kinds: dict[int, Any] = {steps.FLOAT: np.float32, steps.BYTE: np.uint8, steps.SHORT: np.int16}
    held = (ctypes.c_uint8 * place.size).from_address(arena + place.at)
    return np.asarray(held).view(kinds[place.kind])


def _read(place: Place, arena: int) -> NDArray[np.float32]:
    """Return a value's numbers in the program's order; codes are integers."""
    found = _memory(place, arena)[place.order()].astype(np.float32)
    return found - np.float32(place.zero) if place.zero else found


def _write(place: Place, arena: int, numbers: NDArray[np.float32]) -> None:
    memory = _memory(place, arena)
    if memory.size > numbers.size:
        memory[:] = place.zero
    # 0 is not added: the sum may lose subnormal numbers
    memory[place.order()] = numbers + np.float32(place.zero) if place.zero else numbers
