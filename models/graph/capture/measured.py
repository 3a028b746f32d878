"""Sizes of values that an export lost: some operations, such as those of torch.fft, tell it numbers for the pictures' axis."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from models.graph.calls import BATCH
from models.graph.normal import NormalForm
from models.graph.runs import run_and_look


def measure_sizes(form: NormalForm) -> None:
    """Measure the sizes of all values, in place, if some call gives the same sizes for any number of pictures.

    A mean over all pictures is such a call, too; its sizes stay as they are.
    """
    if not any(_lost_pictures(node) for node in form.captured.graph.nodes):
        return
    few, more = (_sizes(form, count) for count in (BATCH, BATCH + 1))
    for node in form.captured.graph.nodes:
        if node in few:
            shape = tuple(one if one == other else None for one, other in zip(few[node], more[node], strict=True))
            node.meta.update(sizes=few[node], shape=shape)


def _lost_pictures(node: fx.Node) -> bool:
    shape = node.meta.get("shape")
    if node.op != "call_function" or not shape or None in shape:
        return False
    return any(None in (source.meta.get("shape") or ()) for source in node.all_input_nodes)


def _sizes(form: NormalForm, count: int) -> dict[fx.Node, tuple[int, ...]]:
    """Return the sizes of each value for so many pictures."""
    found: dict[fx.Node, tuple[int, ...]] = {}

    def measure(node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor) and node.op not in ("get_attr", "output"):
            found[node] = tuple(value.shape)

    run_and_look(form.eval(), count, measure)
    return found
