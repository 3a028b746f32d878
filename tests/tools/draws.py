"""Property tests: a few examples in the fast tests, all of them in the slow ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

FEW, ALL = 30, 200


def drawn(examples: int = ALL, few: int = FEW, **strategies: SearchStrategy) -> Callable[[Callable], Callable]:
    """Decorate a test like hypothesis.given; it runs twice, with few examples and, marked slow, with all."""

    def twice(test: Callable) -> Callable:
        runs = {
            count: settings(max_examples=count, deadline=None)(given(**strategies)(test)) for count in (few, examples)
        }

        @functools.wraps(test)
        def run(drawings: int, **others: Any) -> None:
            runs[drawings](**others)

        left = [p for name, p in inspect.signature(test).parameters.items() if name not in strategies]
        count = inspect.Parameter("drawings", inspect.Parameter.KEYWORD_ONLY)
        run.__signature__ = inspect.Signature([*left, count])  # type: ignore[attr-defined]
        return pytest.mark.parametrize("drawings", [few, pytest.param(examples, marks=pytest.mark.slow)])(run)

    return twice
