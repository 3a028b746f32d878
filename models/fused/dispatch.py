"""Choose the function that computes: the decorated one, or on a GPU the Triton kernel of the same name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable)


def by_kernels(kernels: Callable[[], ModuleType]) -> Callable[[Function], Function]:
    """Return a decorator that calls another module's function of the same name if the first argument is on a GPU.

    Args:
        kernels: imports the module. It is called on a GPU only, as not every torch comes with Triton.
    """

    def of(here: Function) -> Function:
        @wraps(here)
        def run(*given: Any) -> Any:
            return (getattr(kernels(), here.__name__) if given[0].is_cuda else here)(*given)

        return cast(Function, run)

    return of
