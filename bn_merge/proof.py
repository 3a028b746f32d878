"""The proof that a fold changed nothing, on a few pictures, before a file is written."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from engine.errors import BAD_CHECKPOINT, UserError
from engine.tasks.base import Task
from engine.tasks.classification import CLASSIFICATION
from models.graph.normal import NormalForm
from models.layers.quantizers.identity import Identity

PICTURES = 16


@torch.no_grad()
def prove(model: NormalForm, pictures: Tensor, task: Task = CLASSIFICATION) -> None:
    """Fold a float64 copy of a network and compare its output with the unfolded one's.

    Each picture's numbers have to be within 1e-10 of the largest one. Where activations are quantized, one in eight may be
    further off: a value on the edge of two codes may fall to either side, and a wrong fold spares no picture.

    Args:
        pictures: (B, 3, H, W), few.

    Raises:
        UserError: exit 3 if an output is not finite.
        AssertionError: if the fold changed what the network computes.
    """
    exact = copy.deepcopy(model).double().to(pictures.device).eval()
    folded = merge(exact)
    before, after = exact(pictures.double()), folded(pictures.double())
    if not (task.is_finite(before) and task.is_finite(after)):
        raise UserError(f"the network's {task.output_name} are not finite", "take another checkpoint", BAD_CHECKPOINT)
    off = task.changed(before, after)
    if off <= (len(pictures) // 8 if _rounds(model) else 0):
        return
    what = f"folding its batch norms changes the {task.output_name} of {off} of {len(pictures)} pictures"
    raise AssertionError(what)


def _rounds(model: nn.Module) -> bool:
    """Whether any activation is quantized."""
    return any(not isinstance(getattr(m, "input_quantizer", Identity()), Identity) for m in model.modules())
