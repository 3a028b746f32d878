"""The proof, on a few pictures and before a file is written, that a fold changed nothing."""

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
    """Fold a float64 copy of a network and compare its output with that of the unfolded copy.

    The difference must stay within 1e-10 of the largest output. If activations are quantized, one picture in eight may
    differ more: a value on the edge of two codes may fall to either side. A wrong fold changes all pictures.

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
    what = f"folding its batch norms changes the {task.output_name} of {off} of {len(pictures)} pictures"
    raise AssertionError(what)


def _rounds(model: nn.Module) -> bool:
    """Return whether any activation is quantized."""
    return any(not isinstance(getattr(m, "input_quantizer", Identity()), Identity) for m in model.modules())
