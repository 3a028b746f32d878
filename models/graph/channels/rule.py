"""What a rule of a call is: call_rules.py, reductions.py and kernels.py hold the rules, and walk.py runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, fx

from models.graph.channels.masked import Number
from models.graph.channels.notes import Notes
from models.graph.channels.values import Raw


class Walk(Protocol):
    """What rules use of walk.Walk."""

    notes: Notes
    at: fx.Node
    masked: dict[fx.Node, Number]

    def function(self, target: Any, args: Any, kwargs: Any) -> Tensor: ...

    def spatial(self, x: Tensor, directions: int) -> Tensor: ...

    def two(self, one: Any, other: Any, product: bool) -> Tensor: ...

    def with_raw(self, x: Tensor, raw: Raw, product: bool, zeroed: bool = True) -> Tensor: ...

    def is_of_code(self, target: str) -> bool: ...

    def unknown(self, given: list[Any], run: Callable[[], Any] | None = None) -> Any: ...


Rule = Callable[[Walk, Any, Any, Any], Any]
"""Runs a call of a walk, given as target, args and kwargs. None: the rule does not hold for these arguments."""


def spread_out(rule: Callable) -> Rule:
    """Return a rule that passes the arguments of a call one by one."""
    return lambda walk, target, args, kwargs: rule(walk, *args, **kwargs)


def named(target: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the given arguments of a call by the names of its schema."""
    names = (argument.name for argument in target._schema.arguments)
    return {**dict(zip(names, args, strict=False)), **kwargs}
