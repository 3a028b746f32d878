"""What two networks answer, compared; and that a fold changed nothing, shown on a few pictures before a file is written."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from engine.errors import BAD_CHECKPOINT, UserError
from models import check
from models.channels import Network
from models.layers.quantizers import Identity

PICTURES = 16
BOUND = 1e-10
"""Of the largest logit: float64 rounds some thousand times finer."""


@dataclass(frozen=True)
class Agreement:
    """How far the answers of two networks are the same.

    Attributes:
        pictures, agree: all of them, and those of one argmax whose logits are numbers in both.
        gap: largest logit difference, None where a logit is no number.
        differ: for the rest, how far apart the first network's two best logits were; None where one is no number.
    """

    pictures: int
    agree: int
    gap: float | None
    differ: dict[int, float | None]


def agreement(before: Tensor, after: Tensor) -> Agreement:
    """Compare logits, (N, classes) each. What is not finite agrees with nothing, itself included."""
    finite = before.isfinite().all(1) & after.isfinite().all(1)
    same = finite & (before.argmax(1) == after.argmax(1))
    top = before.topk(2, 1).values if before.shape[1] > 1 else before.new_zeros(len(before), 2)
    apart = {int(i): _number(top[i, 0] - top[i, 1]) for i in (~same).nonzero().flatten()}
    gap = (before.double() - after.double()).abs().max() if len(before) else before.new_zeros(())
    return Agreement(len(before), int(same.sum()), _number(gap), apart)


def _number(value: Tensor) -> float | None:
    """None for what JSON has no word for."""
    number = float(value)
    return number if math.isfinite(number) else None


@torch.no_grad()
def prove(model: Network, arch: str, pictures: Tensor) -> None:
    """Fold a float64 copy of a network and compare its logits with the unfolded one's.

    Each picture's have to be within 1e-10 of the largest logit. Where activations are quantized, one in eight may be
    further off: a value on the edge of two codes may fall to either side, and a wrong fold spares no picture.

    Args:
        arch: its name; `package.module:function` for a network of the user's.
        pictures: (B, 3, H, W), few.

    Raises:
        UserError: exit 3 if a logit is no number or, for a network of the user's, if the fold changed it; exit 2 if
            the user's code fails in float64.
        AssertionError: if the fold changed a network of ours.
    """
    exact = copy.deepcopy(model).double().to(pictures.device).eval()
    folded = merge(exact)
    own = ":" in arch
    with check.theirs(arch, "it has to compute in float64, too") if own else nullcontext():
        before, after = exact(pictures.double()), folded(pictures.double())
    if not (before.isfinite().all() and after.isfinite().all()):
        raise UserError("the network's logits are not finite", "take another checkpoint", BAD_CHECKPOINT)
    off = int(((before - after).abs().amax(1) > BOUND * before.abs().max()).sum())
    if off <= (len(pictures) // 8 if _rounds(model) else 0):
        return
    what = f"folding its batch norms changes the logits of {off} of {len(pictures)} pictures"
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
