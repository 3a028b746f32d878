"""Who plans and cuts a file's network: by the channel groups that it declares, or by the classes found in its graph."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.errors import UserError
from models import files, registry, user_code
from models.channels import Network
from models.graph import narrow
from models.graph.channels import Channels, channels
from models.graph.normal import NormalForm
from prune import by_class, plan as by_group, surgery
from prune.by_class import ClassPlan
from prune.families import Importance
from prune.plan import PrunePlan
from prune.widths import Tried

Plan = PrunePlan | ClassPlan


class Surgeon(Protocol):
    """Plans, and makes what the proof of surgery compares. All networks are copies."""

    def plan(self, percent: float, base: int) -> Any: ...

    def masked(self, model: Any, chosen: Any) -> Network:
        """`model` with what is to go silent."""

    def narrowed(self, model: Any, chosen: Any) -> Network:
        """`model` without it."""


def surgeon(model: Network, parent: Checkpoint, arch: str | None, importance: Importance) -> Surgeon:
    """The surgeon of a file's network.

    Args:
        arch: what --arch says.

    Raises:
        UserError: exit 2 for an importance that this network's plan does not know.
    """
    if isinstance(model, NormalForm):
        return Captured(
            model, files.plain(parent, arch), channels(model, model.captured.whole), parent.arch, importance
        )
    if importance != "bn":
        raise UserError(
            f"--importance {importance}: {parent.arch} declares its channels, and their batch norms say what goes",
            "leave --importance out",
        )
    return Declared(model, parent)


@dataclass(frozen=True)
class Declared:
    """For networks with channel_groups()."""

    model: Network
    parent: Checkpoint

    def plan(self, percent: float, base: int) -> PrunePlan:
        return by_group.plan(surgery.gates_of(self.model), percent, base)

    def masked(self, model: Network, chosen: PrunePlan) -> Network:
        return surgery.masked(model, chosen)

    def narrowed(self, model: Network, chosen: PrunePlan) -> Network:
        return surgery.sliced(model, chosen, self._build)

    def _build(self, cfg: list[int]) -> Network:
        return registry.build(self.parent.arch, cfg, **self.parent.arch_args)


@dataclass(frozen=True)
class Captured:
    """For normal forms.

    Args:
        plain: the network as its code makes it, of the form's sizes.
        found: the classes of its channels.
    """

    form: NormalForm
    plain: nn.Module
    found: Channels
    arch: str
    importance: Importance

    def plan(self, percent: float, base: int) -> ClassPlan:
        with user_code.running(self.arch):
            return by_class.plan(Tried(self.plain, self.form, self.found, self.arch), percent, base, self.importance)

    def masked(self, model: Any, chosen: ClassPlan) -> Any:
        return narrow.masked(model, self.found, chosen.dropped)

    def narrowed(self, model: Any, chosen: ClassPlan) -> Any:
        like = next(model.parameters())
        plain = copy.deepcopy(self.plain).to(like.device, like.dtype)
        try:
            with user_code.running(self.arch):
                return narrow.narrowed(plain, model, self.found, chosen.dropped, self.arch)
        except narrow.NotLegal as fault:
            raise UserError(
                f"--arch {self.arch}: it cannot be as narrow as planned: {fault}", "take another --percent"
            ) from fault


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
