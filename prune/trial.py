"""A trial cut of your network before sparse training, to find sizes that are written as numbers in its code."""

from __future__ import annotations

from torch import nn

from engine.cli.archs import is_users_code
from engine.errors import UserError
from engine.system.messages import notice
from models import user_code
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from prune import report
from prune.computed import computed_channels
from prune.families import families, rows, scores, stays
from prune.plan import nothing_to_cut
from prune.sparsity import gates
from prune.widths import Subject, settle


def try_to_cut(form: NormalForm, plain: nn.Module, arch: str) -> None:
    """Halve the widths of a copy and print the layers that cannot lose channels. Skip the toolkit's own networks.

    Args:
        plain: the network as its code builds it, with the form's sizes.

    Raises:
        UserError: exit 2 if no batch norm scales channels that can be cut, or no layer can lose channels.
    """
    if not is_users_code(arch):
        gates(form)
        return
    found = channels(form, form.captured.whole)
    by_weights = scores(form, found, "l1")
    if not families(found, by_weights):  # no other importance helps
        report.say_what_stays(stays(found, by_weights, "l1"), rows(found), computed_channels(form))
        raise nothing_to_cut(arch, form, found, "l1")
    gates(form)
    worth = scores(form, found)
    chosen = families(found, worth)
    if not chosen:
        report.say_what_stays(stays(found, worth, "bn"), rows(found), computed_channels(form))
        raise nothing_to_cut(arch, form, found, "bn")
    halves = [max(len(family.classes) // 2, 2) for family in chosen]
    with user_code.running(arch):
        needs = settle(Subject(plain, form, found, arch), chosen, halves, 1, [2] * len(chosen))
    stay = [f.name for f, need in zip(chosen, needs, strict=True) if sum(need.values()) == len(f.classes) > 2]
    if chosen and len(stay) == len(chosen):
        raise UserError(
            f"--arch {arch}: none of its layers can lose channels: a narrower copy cannot be captured",
            "let its forward take sizes from tensors, not from numbers: x.flatten(1), not x.view(-1, 512)",
        )
    if stay:
        notice(
            f"{', '.join(stay)} will not lose channels: a narrower copy cannot be captured; does the code that reads "
            "them contain a size as a number, or compute with it?"
        )
