"""A run of a captured graph that shows each of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from models.graph.normal import NormalForm, pictures, type_and_device


@torch.no_grad()
def run_and_look(form: NormalForm, count: int, look: Callable[[fx.Node, Any], None]) -> None:
    """Run a graph on made-up pictures and call `look` with each node and its value, in order.

    Args:
        count: of the pictures.
    """

    class Run(fx.Interpreter):
        """Shows each value."""

        def run_node(self, n: fx.Node) -> Any:
            found = super().run_node(n)
            look(n, found)
            return found

    dtype, device = type_and_device(form)
    Run(form, graph=form.captured.graph).run(pictures(form.captured.picture, count).to(device, dtype))
