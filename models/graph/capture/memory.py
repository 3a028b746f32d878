"""Operations that depend on the order of numbers in memory, which training changes to channels last."""

from __future__ import annotations

import torch
from torch import fx

from models.check import Misdeclared
from models.graph import calls
from models.graph.aliases import roots, written

aten = torch.ops.aten

BY_PLACE = {
    aten.as_strided, aten.as_strided_, aten.as_strided_copy, aten.as_strided_scatter, aten.resize_, aten.resize_as_, aten.set_,
}  # fmt: skip
"""They find numbers by their place in memory, so another order gives other numbers."""
LAST_AXIS_TOGETHER = {aten.view_as_complex}
"""They raise an error unless the numbers of the last axis stand side by side."""


def settle(graph: fx.Graph, arch: str) -> None:
    """Make an exported graph compute the same in any order of memory.

    Raises:
        Misdeclared: exit 2 for an operation that finds numbers by their place.
    """
    memory, changed = roots(graph), written(graph)
    for node in list(graph.nodes):
        what = calls.packet(node)
        aside = what in LAST_AXIS_TOGETHER
        if what in BY_PLACE or (aside and memory[node] in changed):
            raise Misdeclared(
                f"--arch {arch}: its code depends on the order of numbers in memory: {what} ({calls.line(node)})",
                "use slices, or unfold; training keeps pictures in another order, with the channels last",
            )
        if aside:
            source = calls.source(node)
            with graph.inserting_before(node):
                whole = graph.call_function(aten.contiguous.default, (source,))
            whole.meta.update(source.meta)
            node.replace_input_with(source, whole)
