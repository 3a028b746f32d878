"""The module that evaluates a network. models/fused/view.py registers how faster ones are made, as engine knows no networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

Maker = Callable[["nn.Module", int, int], "nn.Module | None"]
_makers: list[Maker] = []


def register(maker: Maker) -> None:
    """Add a function that returns a module with a network's own results, bit for bit, or None.

    It is given the network, in eval mode, the number of pictures, and how many are evaluated at a time.
    """
    _makers.append(maker)


def evaluator(model: nn.Module, pictures: int, batch: int) -> nn.Module:
    """Return the module that evaluates a network: the first that a maker returns, else the network itself."""
    made = (maker(model, pictures, batch) for maker in _makers)
    return next((module for module in made if module is not None), model)
