"""Sparse training: the penalty that drives BN scales to zero, and the check that it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from engine.checkpoint.history import History, Refine, Train
from engine.cli.naming import called
from engine.errors import UserError
from engine.system.messages import notice
from models.graph.channels import classes
from models.graph.normal import NormalForm

HARDLY = 0.01
"""Relative change of the median scale below which a notice recommends a larger --s."""


def gates(model: NormalForm) -> list[tuple[str, nn.Module]]:
    """Return the batch norms whose scales rank the channels, with their names, in order.

    Raises:
        UserError: exit 2 if the network has none.
    """
    if found := classes.gates(model):
        return found
    raise UserError("no batch norm of this network scales channels that can be cut", by_weights())


def by_weights() -> str:
    """Return the hint for a network whose channels can be cut, but not by batch norm scales."""
    return f"train without -sr, then choose channels by weights: {called('prune.normal_regular --importance l1')}"


def penalty(s: float) -> Callable[[NormalForm], Tensor]:
    """Return the loss term of network slimming (arXiv 1708.06519, eq. 1): s * sum of |gamma| over all gates.

    Its gradient is s * sign(gamma), 0 at 0. The original code adds the same numbers to `.grad` after backward.
    """

    def term(model: NormalForm) -> Tensor:
        return s * torch.stack([cast(Tensor, bn.weight).abs().sum() for _, bn in gates(model)]).sum()

    return term


def gammas(model: NormalForm) -> list[Tensor]:
    """Return the scales of every gate, in order: one float64 tensor (width,) a gate, on the CPU."""
    return [cast(Tensor, bn.weight).detach().double().cpu() for _, bn in gates(model)]


def say_what_moved(before: list[Tensor], after: list[Tensor]) -> None:
    """Print a notice if training with the penalty moved the median scale by less than HARDLY."""
    first, last = (torch.cat([g.abs() for g in scales]).median().item() for scales in (before, after))
    if first and abs(last / first - 1) < HARDLY:
        notice(
            f"the penalty hardly moved the batch norm scales (median {last / first:.3f} of the first): give a larger --s"
        )


def looks_sparse(scales: list[Tensor]) -> bool:
    """Return whether scales differ enough to rank channels: by more than 1e-3 and by more than 1e-3 of the largest.

    The scales of fresh or plainly trained networks often differ less. So do scales that a too large s moved in step.
    """
    every = torch.cat([g.abs() for g in scales])
    return bool(every.max() - every.min() > 1e-3 * every.max().clamp_min(1))


def alike(history: History) -> str:
    """Return why the scales of a network with this history may be alike, and what to do, as the end of a sentence."""
    strengths = [stage.s for stage in history if isinstance(stage, (Train, Refine)) and stage.s]
    if not strengths:
        return "looks not sparsity-trained: its BN scales hardly differ; train with -sr first"
    return (
        f"has BN scales that hardly differ: training was short, or --s {strengths[-1]:g} too large; train with -sr for more "
        "epochs, or with a smaller --s"
    )
