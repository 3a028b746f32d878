"""The proof, on a few pictures and before a file is written, that a fold changed nothing."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from engine.errors import BAD_CHECKPOINT, UserError
from engine.tasks.base import Task
from engine.tasks.classification import CLASSIFICATION
from models.graph.normal import NormalForm
from models.layers.quantizers.identity import Identity

PICTURES = 16
EDGE = 1e-10
"""How far an input may be from the edge of its code, as a share of the largest input, to get the next code."""


@torch.no_grad()
def prove(model: NormalForm, pictures: Tensor, task: Task = CLASSIFICATION) -> None:
    """Fold a float64 copy of a network and compare its output with that of the unfolded copy.

    The difference must stay within 1e-10 of the largest output. If activations are quantized, one picture in eight may
    differ more: a value on the edge of two codes may fall to either side. A wrong fold changes all pictures. Many
    values on edges, as of differences of signs, can change all pictures, too. Then each layer reads the input that it had in the unfolded
    copy: codes may differ on edges alone, and the output on no picture.

    Args:
        pictures: a few pictures, (B, 3, H, W).

    Raises:
        UserError: exit 3 if an output is not finite.
        AssertionError: if the fold changed the network's output.
    """
    exact = copy.deepcopy(model).double().to(pictures.device).eval()
    folded = merge(exact)
    before, after = exact(pictures.double()), folded(pictures.double())
    if not (task.is_finite(before) and task.is_finite(after)):
        raise UserError(f"the network's {task.output_name} are not finite", "merge another checkpoint", BAD_CHECKPOINT)
    off = task.changed(before, after)
    if off <= (len(pictures) // 8 if _rounds(model) else 0):
        return
    if _rounds(model) and (after := _layer_by_layer(exact, folded, pictures.double())) is not None:
        off = task.changed(before, after)
        if off == 0:
            return
    what = f"folding its batch norms changes the {task.output_name} of {off} of {len(pictures)} pictures"
    raise AssertionError(what)


def _layer_by_layer(exact: NormalForm, folded: NormalForm, pictures: Tensor) -> Any:
    """Return the output of the folded network whose layers read what those of `exact` read; None if other codes differ.

    A code differs on an edge alone if the input, moved by EDGE of its largest number, gets the other code.
    """
    seen: dict[str, list[Tensor]] = defaultdict(list)
    differs = False

    def record(name: str) -> Callable[..., None]:
        return lambda layer, given: seen[name].append(given[0])

    def replaced(name: str, quantizer: nn.Module) -> Callable[..., tuple[Tensor]]:
        def hook(layer: Any, given: tuple[Tensor]) -> tuple[Tensor]:
            nonlocal differs
            expected = seen[name].pop(0)
            far = EDGE * expected.abs().max()
            codes = layer.input_quantizer(given[0])[0]
            near = [quantizer(expected + move)[0] == codes for move in (0, far, -far)]
            differs |= not torch.stack(near).any(0).all()
            return (expected,)

        return hook

    before, after = dict(exact.named_modules()), dict(folded.named_modules())
    handles = []
    for name, layer in before.items():
        if _codes_inputs(layer) and _codes_inputs(after.get(name)):
            handles.append(layer.register_forward_pre_hook(record(name)))
            handles.append(
                after[name].register_forward_pre_hook(replaced(name, cast(nn.Module, layer.input_quantizer)))
            )
    try:
        exact(pictures)
        found = folded(pictures)
    finally:
        for handle in handles:
            handle.remove()
    return None if differs else found


def _rounds(model: nn.Module) -> bool:
    """Return whether any activation is quantized."""
    return any(map(_codes_inputs, model.modules()))


def _codes_inputs(layer: nn.Module | None) -> bool:
    """Return whether a layer turns its inputs into codes. Float inputs may differ by rounding."""
    return not isinstance(getattr(layer, "input_quantizer", Identity()), Identity)
