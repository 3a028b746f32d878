"""Which function computes: one here, or that of its name in a module of Triton kernels, on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable)


def by_kernels(kernels: Callable[[], ModuleType]) -> Callable[[Function], Function]:
    """Let that of another module compute where the first argument is on a GPU.

    Args:
        kernels: imports the module, which is done then: not every torch has Triton beside it.
    """

    def of(here: Function) -> Function:
        @wraps(here)
        def run(*given: Any) -> Any:
            return (getattr(kernels(), here.__name__) if given[0].is_cuda else here)(*given)

        return cast(Function, run)

    return of
