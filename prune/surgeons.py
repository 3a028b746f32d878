"""Who plans and cuts a file's network, by the classes of channels found in its graph."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass

from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.errors import UserError
from models import files, registry, user_code
from models.graph import narrow
from models.graph.channels import Channels, channels
from models.graph.normal import NormalForm
from prune import by_class
from prune.by_class import ClassPlan
from prune.families import Importance
from prune.options import Options
from prune.spare import spared
from prune.widths import Tried


def surgeon(model: NormalForm, parent: Checkpoint, options: Options) -> Surgeon:
    """The surgeon of a file's network.

    Raises:
        UserError: exit 2 for patterns that name no layer of it.
    """
    found = channels(model, model.captured.whole)
    plain = files.plain(parent, options.network.arch)
    return Surgeon(model, plain, found, spared(model, found, options.spare), parent.arch, options.importance)



@dataclass(frozen=True)
class Surgeon:
    """Plans, and makes what the proof of surgery compares. All networks are copies.

    Args:
        plain: the network as its code makes it, of the form's sizes.
        found: the classes of its channels.
        open: the same with what is spared fixed, to plan with.
    """

    form: NormalForm
    plain: nn.Module
    found: Channels
    open: Channels
    arch: str
    importance: Importance

    def plan(self, percent: float, base: int) -> ClassPlan:
        with user_code.running(self.arch):
            return by_class.plan(Tried(self.plain, self.form, self.open, self.arch), percent, base, self.importance)

    def masked(self, model: NormalForm, chosen: ClassPlan) -> NormalForm:
        """`model` with what is to go silent."""
        return narrow.masked(model, self.found, chosen.dropped)

    def narrowed(self, model: NormalForm, chosen: ClassPlan) -> NormalForm:
        """`model` without it."""
        like = next(model.parameters())
        plain = copy.deepcopy(self.plain).to(like.device, like.dtype)
        try:
            with user_code.running(self.arch):
                small = narrow.narrowed(plain, model, self.found, chosen.dropped, self.arch)
        except narrow.NotLegal as fault:
            raise UserError(
                f"--arch {self.arch}: it cannot be as narrow as planned: {fault}", "take another --percent"
            ) from fault
        small.cfg = registry.widths(self.arch, small) or model.cfg
        return small


def say_what_is_fixed(found: Channels) -> None:
    """Name, on stderr, how many channels cannot be cut, by reason."""
    count: dict[str, set[int]] = {}
    for place in found.places:
        if place.makes:
            for cls in place.classes.tolist():
                if cls in found.fixed:
                    count.setdefault(found.fixed[cls], set()).add(cls)
    for why, classes in sorted(count.items(), key=lambda item: -len(item[1])):
        print(f"notice: {len(classes):,} channels stay: {why}", file=sys.stderr)
