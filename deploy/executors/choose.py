"""Choose the executor that --executor names, or the fastest one on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from deploy.executors import measured
from deploy.executors.base import Executor, arithmetic
from deploy.program import Program
from deploy.reference.run import run
from engine.errors import UserError
from engine.system.compiled import Unavailable
from engine.system.messages import notice

if TYPE_CHECKING:
    from deploy.native.executor import Native


class Reference:
    """The executor that defines what a program computes."""

    name = "reference"

    def __init__(self, program: Program) -> None:
        self.program, self.how = program, f"{arithmetic(program)}, the definition"

    def __call__(self, x: Tensor) -> Tensor:
        return run(self.program, x)


def choose(name: str, program: Program, pictures: int = 1) -> Executor:
    """Return an executor for a program. `auto` takes the fastest; a notice says why the native engine is unavailable.

    Args:
        pictures: the batch size at which `auto` measures.

    Raises:
        UserError: exit 2 for `native` if there is no native engine.
    """
    if name == "auto":
        return _fastest(program, pictures)
    try:
        return MAKERS[name](program)
    except Unavailable as fault:
        raise UserError(f"there is no native engine here: {fault}", "leave --executor at auto") from fault


def _native(program: Program) -> Native:
    from deploy.native.executor import Native

    return Native(program)


def _torch(program: Program) -> Executor:
    from deploy.executors.stock import Stock

    return Stock(program)


MAKERS: dict[str, Callable[[Program], Executor]] = {"native": _native, "torch": _torch, "reference": Reference}


def _fastest(program: Program, pictures: int) -> Executor:
    made: dict[str, Callable[[], Executor]] = {}
    libraries: list[str] = []
    try:
        native = _native(program)
        made["native"] = lambda: native
        libraries = [native.engine.path.name, native.engine.kernels]
    except Unavailable as fault:
        notice(f"no native engine: {fault}")
    made["torch"] = partial(_torch, program)
    return measured.fastest(program, made, libraries, pictures)
