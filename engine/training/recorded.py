"""Record a training step on a GPU once as a CUDA graph and replay it: one launch a step instead of some hundred.

Python does not run in a replay. So a step is recorded only if nothing but tensors differs from the step before. It is
recorded again if the start of an epoch changes a number or a flag of the network: a range may be frozen, or a step size
learned from then on.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from engine.errors import first_line
from engine.system import ranks
from engine.system.messages import notice
from engine.tasks.base import Target
from engine.training.progress import FitConfig
from engine.training.step import Step

SETTLED = 3
"""Equal steps before one is recorded. In the first steps, libraries choose kernels, loops compile and optimizers create
their state."""
Replay = Callable[[], Tensor]
"""Repeats the recorded step with the current values of its tensors, and returns its result."""
Recorder = Callable[[Callable[[], Tensor]], Replay]
"""Records the launches of a function without executing them."""


def kind(config: FitConfig, device: torch.device) -> type[Step]:
    """Return the class of steps: recorded on a GPU, except with exact products or several ranks.

    Exact products inspect their codes in every step, and ranks wait for each other.
    """
    pays = device.type == "cuda" and config.precision != "exact" and ranks.count() == 1
    return Recorded if pays else Step


def graph(run: Callable[[], Tensor]) -> Replay:
    """Record a function as a CUDA graph."""
    made = torch.cuda.CUDAGraph()
    with torch.cuda.graph(made, capture_error_mode="thread_local"):  # threads that load pictures may allocate
        found = run()

    def replay() -> Tensor:
        made.replay()
        return found

    return replay


class Recorded(Step):
    """A step that is recorded after SETTLED equal ones and then replayed; batches of another shape are not replayed.

    If a step waits for the GPU or cannot be recorded, no step is replayed, and a notice says so.
    """

    recorder: Recorder = staticmethod(graph)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._refused = False
        self._forget()

    def _forget(self) -> None:
        self._replay: Replay | None = None
        self._held: tuple[Tensor, ...] = ()
        self._alike, self._habits = 0, _habits(self.model)
        self._updated = False

    @property
    def is_recorded(self) -> bool:
        return self._replay is not None

    def start_epoch(self) -> None:
        if _habits(self.model) != self._habits:
            self._forget()

    def gradients(self, images: Tensor, target: Target, whole: int | None = None) -> Tensor:
        given = (images, target)
        if self._replay is None and self._alike >= SETTLED and not self._refused and isinstance(target, Tensor):
            self._record(given)
        self._updated = self._replay is not None and all(map(_fits, self._held, given))
        if not self._updated or self._replay is None:
            with self._watched():
                return super().gradients(images, target, whole)
        for held, value in zip(self._held, given, strict=True):
            held.copy_(value)
        self.tell_rates()
        return self._replay().clone()

    def update(self) -> None:
        """Change the network, unless a replay has done so."""
        if self._updated:
            return
        with self._watched():
            super().update()
        if self._replay is None:
            now = _habits(self.model)
            self._alike = self._alike + 1 if now == self._habits else 0
            self._habits = now

    def _record(self, given: tuple[Tensor, ...]) -> None:
        def run() -> Tensor:
            images, target = held
            found = Step.gradients(self, images, target)
            Step.update(self)
            return found

        held = tuple(value.clone() for value in given)
        self.optimizer.zero_grad(set_to_none=True)  # a recorded step allocates its own gradients
        try:
            self._replay, self._held = self.recorder(run), held
        except RuntimeError as fault:
            self._refuse(first_line(fault))

    def _refuse(self, why: str) -> None:
        self._refused = True
        notice(f"training is slower than it could be: its steps cannot be recorded as a CUDA graph ({why})")

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Check in the last step before recording that it neither waits for the GPU nor draws numbers on the CPU."""
        if self._alike != SETTLED - 1 or self._refused or self._replay is not None or self.device.type != "cuda":
            yield
            return
        before, drawn = torch.cuda.get_sync_debug_mode(), (torch.get_rng_state(), random.getstate())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)
        others = [one for one in said if "synchroniz" not in str(one.message).lower()]
        for one in others:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        if any("called a synchronizing" in str(one.message) for one in said):
            self._refuse("it waits for the GPU")
        elif not torch.equal(drawn[0], torch.get_rng_state()) or drawn[1] != random.getstate():
            self._refuse("it draws numbers on the CPU")


def _fits(held: Tensor, given: Any) -> bool:
    return isinstance(given, Tensor) and (held.shape, held.dtype, held.stride()) == (
        given.shape,
        given.dtype,
        given.stride(),
    )


def _habits(model: torch.nn.Module) -> list[Any]:
    """Return what a step depends on besides tensors: all modules' plain attributes, and which parameters learn."""
    plain = (bool, int, float, str, type(None))
    return [
        *((id(module), key, value) for module in model.modules() for key, value in vars(module).items()
          if isinstance(value, plain)),
        *(parameter.requires_grad for parameter in model.parameters()),
    ]  # fmt: skip
