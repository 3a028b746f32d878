"""Checks of graphs in batch-first form."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from deploy.lowering.batch.first import batch_first
from models.graph.normal import NormalForm
from tests.deploy.lowering.calling import assert_same, captured, lowered


def moves_the_pictures(form: NormalForm) -> bool:
    """Return whether some value has its pictures in another axis, or laid together with another one."""
    values = [n.meta["sizes"] for n in form.captured.graph.nodes if n.meta.get("shape") and None in n.meta["shape"]]
    return any(sizes[0] != 2 for sizes in values)


def assert_first(form: NormalForm) -> None:
    """Check the graph in batch-first form, with one, two and three pictures: its numbers, and each value's recorded sizes."""
    exact, first = copy.deepcopy(form).double(), batch_first(copy.deepcopy(form).double())

    class Checked(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            found = super().run_node(n)
            if isinstance(found, Tensor) and None in (shape := n.meta.get("shape") or ()):
                assert shape[0] is None
                assert tuple(found.shape[1:]) == tuple(shape[1:])
                assert len(found) in (1, count)  # one: the same for each picture
            return found

    for count in (1, 2, 3):
        x = torch.randn(count, *form.captured.picture, dtype=torch.float64)
        with torch.no_grad():
            assert torch.allclose(Checked(first, graph=first.captured.graph).run(x), exact(x), rtol=1e-12, atol=1e-12)


def assert_computes(made: nn.Module) -> None:
    """Check a network that moves the pictures' axis: its graph in batch-first form, and its program."""
    form = captured(made)
    assert moves_the_pictures(form)
    assert_first(form)
    assert_same(lowered(form), made)
