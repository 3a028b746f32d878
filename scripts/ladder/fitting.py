"""The rows that a network can fill: the others are left out by name before a step runs. For NIN, all rows fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.cli.archs import ARCHS
from engine.cli.datasets import BOXES
from engine.data import catalogue
from engine.errors import UserError
from engine.system.messages import notice
from engine.tasks.of import task_of
from models import forms
from models.graph.normal import NormalForm
from prune.sparsity import gates
from quant.placement import meet
from scripts.chain import module
from scripts.ladder import steps
from scripts.ladder.options import Options
from scripts.ladder.rows import LadderRow
from scripts.ladder.steps import Step


def fitting(options: Options, rows: list[LadderRow]) -> list[LadderRow]:
    """Return the rows that the network can fill. Name the others in a notice, with the reason of each.

    Raises:
        UserError: exit 2 if no row is left, or a detector and pictures without boxes meet; as forms.build.
    """
    if options.arch in ARCHS:
        return rows
    reasons = _refused(options, dict.fromkeys(step for row in rows for step in steps.chain(row.step)))
    out: dict[str, list[str]] = {}
    for row in rows:
        if why := next((reasons[step.name] for step in steps.chain(row.step) if step.name in reasons), None):
            out.setdefault(why, []).append(row.name)
    told = [f"{', '.join(names)}: {why}" for why, names in out.items()]
    left = [row for row in rows if not any(row.name in names for names in out.values())]
    if not left:
        raise UserError(f"{options.arch} fills none of these rows: {'; '.join(told)}", "name other --rows")
    for line in told:
        notice(f"left out {line}")
    return left


def _refused(options: Options, asked: Iterable[Step]) -> dict[str, str]:
    """Return the steps that cannot work on the network, by name, each with the reason."""
    network = _network(options) if options.dataset in BOXES else None
    found = {}
    for step in asked:
        if step.reads == "--from_scratch":
            found[step.name] = (
                f"only networks of this toolkit can be built afresh with given widths, not {options.arch}"
            )
        elif network:
            try:
                _try(step, network)
            except UserError as fault:
                found[step.name] = str(fault)
    return found


def _network(options: Options) -> NormalForm:
    """Return the detector with fresh weights."""
    info = catalogue.describe(options.dataset, options.data.image_size, options.data.root)
    more = {"core": options.core} if options.core else {}
    network = forms.build(options.arch, None, info.classes, info.image_size, **more)
    task_of(network, info, options.arch)
    return network


def _try(step: Step, network: NormalForm) -> None:
    """Check a step against the network, as its command does before it works.

    Raises:
        UserError: exit 2 if the command would refuse the network.
    """
    if "-sr" in step.flags:
        gates(network)
    if step.module in ("quant.wqaq", "quant.wbwtab"):
        options: Any = module(step.module).parser().options_of(step.flags)
        meet(options.settings.spec(), network)
