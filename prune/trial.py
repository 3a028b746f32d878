"""A network of the user's, examined before time is spent on it: what it answers, and whether surgery on a copy holds."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

import models
from engine.cli.archs import is_users_code
from engine.errors import UserError
from engine.tasks.classification import CLASSIFICATION
from models import check
from models.channels import Network, gates
from models.graph.normal import NormalForm
from prune import sparsity
from prune.plan import Gate, PrunePlan, nearest
from prune.surgery import Build, gates_of, masked, misdescribed, sliced


def check_for_pruning(model: Network, arch: str, arch_args: dict[str, Any], size: int, sparse: bool) -> None:
    """Refuse a network of the user's that could not be trained, or not be pruned after sparse training; ours pass.

    Args:
        arch_args: what it was built with besides cfg, its classes among them.
        size: of the pictures.
        sparse: whether it is trained to be pruned.

    Raises:
        UserError: exit 2, before any training. Torch's random state is not touched.
    """
    if not is_users_code(arch) or isinstance(model, NormalForm):  # captured: its channels are found, not declared
        if sparse and isinstance(model, NormalForm):
            sparsity.gates(model)  # refuses one without any
        return
    check.check_output(model, arch, arch_args["classes"], size)
    if sparse:
        trial_prune(model, lambda cfg: models.build(arch, cfg, **{**arch_args, **model.arch_args}), size)


@torch.no_grad()
def trial_prune(model: Network, build: Build, size: int) -> None:
    """Cut a copy with random scales and look whether the proof of surgery holds, before a network is trained for it.

    A narrower network that the user's function itself refuses (ValueError) is left to pruning: it knows which widths fit.

    Args:
        size: of the pictures.

    Raises:
        UserError: exit 2, naming the gate whose channels are read otherwise than declared.
    """
    source = torch.Generator().manual_seed(0)  # torch's own random state stays as it is: equal seeds, equal networks
    with torch.random.fork_rng(devices=[]):
        trial = copy.deepcopy(model).cpu().double().eval()
        for parameter in trial.parameters():
            if not parameter.any():  # a branch that starts at 0 would hide what happens in it
                parameter.normal_(generator=source)
        for _, gate in gates(trial):
            gate.weight.uniform_(0.5, 1.5, generator=source)
        pictures = torch.randn(2, 3, size, size, generator=source, dtype=torch.float64)
        try:
            trial(pictures)
        except Exception as fault:
            raise UserError(
                f"its forward does not work in float64, in which pruning is proven: {check.one_line(fault)}",
                "let what forward makes have the dtype of its input",
            ) from fault
        found = gates_of(trial)
        names = [gate.name for gate in found]
        if not _holds(trial, _trial_plan(found, names), build, pictures):
            apart = (name for name in names if not _holds(trial, _trial_plan(found, [name]), build, pictures))
            raise misdescribed(f"without some channels of {next(apart, 'several gates')} it computes something else")


def _trial_plan(found: list[Gate], cut: list[str]) -> PrunePlan:
    """Between a quarter and three quarters of each of these gates; neighbours differ, so that swapped ones show."""
    shares = (0.25 + 0.5 * (place * 0.618 % 1) for place in range(len(found)))
    widths = [
        nearest(round(g.width * s), g.allowed_widths(1)) if g.name in cut else g.width
        for g, s in zip(found, shares, strict=False)
    ]
    return PrunePlan(
        tuple(gate.name for gate in found), tuple(gate.width for gate in found),
        tuple(gate.choose(width) for gate, width in zip(found, widths, strict=True)),
        tuple(gate.unit for gate in found), 0.5, 1,
    )  # fmt: skip


def _holds(trial: Network, plan: PrunePlan, build: Build, pictures: Tensor) -> bool:
    try:
        small = sliced(trial, plan, build)
    except UserError as fault:
        if isinstance(fault.__cause__, (ValueError, AssertionError)):
            return True
        raise
    try:
        answers = small(pictures)
    except Exception as fault:
        raise misdescribed(f"the narrower network fails: {check.one_line(fault)}") from fault
    return CLASSIFICATION.same(masked(trial, plan)(pictures), answers)
