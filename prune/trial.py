"""A network of the user's, cut on trial before it is trained to be cut: sizes that its code has written in show here."""

from __future__ import annotations

from torch import nn

from engine.cli.archs import is_users_code
from engine.errors import UserError
from engine.system.said import notice
from models import user_code
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from prune.families import families, scores
from prune.sparsity import gates
from prune.widths import Subject, settle


def try_to_cut(form: NormalForm, plain: nn.Module, arch: str) -> None:
    """Halve the widths of a copy, and name the layers that stay whole; only the code of a user's own network is tried.

    Args:
        plain: the network as its code makes it, of the form's sizes.

    Raises:
        UserError: exit 2 for a network without any channels that a batch norm scales and that can be cut.
    """
    gates(form)
    if not is_users_code(arch):
        return
    found = channels(form, form.captured.whole)
    chosen = families(found, scores(form, found))
    halves = [max(len(family.classes) // 2, 2) for family in chosen]
    with user_code.running(arch):
        needs = settle(Subject(plain, form, found, arch), chosen, halves, 1, [2] * len(chosen))
    stay = [f.name for f, need in zip(chosen, needs, strict=True) if sum(need.values()) == len(f.classes) > 2]
    if chosen and len(stay) == len(chosen):
        raise UserError(
            f"--arch {arch}: no layer of it can lose channels: a narrower copy cannot be captured",
            "let its forward read sizes off its values, not write them as numbers: x.flatten(1), not x.view(-1, 512)",
        )
    if stay:
        notice(
            f"{', '.join(stay)} will not lose channels: a narrower copy cannot be captured; is a size written into "
            "the code of what reads them?"
        )
