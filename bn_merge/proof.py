"""The proof that a fold changed nothing, on a few pictures, before a file is written."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from engine.errors import BAD_CHECKPOINT, UserError
from engine.tasks.classification import CLASSIFICATION as task
from models import check
from models.channels import Network
from models.layers.quantizers.identity import Identity

PICTURES = 16


@torch.no_grad()
def prove(model: Network, arch: str, pictures: Tensor) -> None:
    """Fold a float64 copy of a network and compare its output with the unfolded one's.

    Each picture's numbers have to be within 1e-10 of the largest one. Where activations are quantized, one in eight may be
    further off: a value on the edge of two codes may fall to either side, and a wrong fold spares no picture.

    Args:
        arch: its name; `package.module:function` for a network of the user's.
        pictures: (B, 3, H, W), few.

    Raises:
        UserError: exit 3 if an output is not finite or, for a network of the user's, if the fold changed it; exit 2 if
            the user's code fails in float64.
        AssertionError: if the fold changed a network of ours.
    """
    exact = copy.deepcopy(model).double().to(pictures.device).eval()
    folded = merge(exact)
    own = ":" in arch
    with check.user_code(arch, "it has to compute in float64, too") if own else nullcontext():
        before, after = exact(pictures.double()), folded(pictures.double())
    if not (task.is_finite(before) and task.is_finite(after)):
        raise UserError(f"the network's {task.output_name} are not finite", "take another checkpoint", BAD_CHECKPOINT)
    off = task.changed(before, after)
    if off <= (len(pictures) // 8 if _rounds(model) else 0):
        return
    what = f"folding its batch norms changes the {task.output_name} of {off} of {len(pictures)} pictures"
    if own:
        raise UserError(
            f"--arch {arch}: {what}",
            "a batch norm's result may go through its block alone, and the readers of each channel group have to be all "
            "there are; " + check.SEE,
            BAD_CHECKPOINT,
        )
    raise AssertionError(what)


def _rounds(model: nn.Module) -> bool:
    """Whether any activation is quantized."""
    return any(not isinstance(getattr(m, "input_quantizer", Identity()), Identity) for m in model.modules())
