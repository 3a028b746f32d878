"""Planning and cutting of a file's network, by the classes of channels in its graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.errors import UserError
from models import files, registry, user_code
from models.graph.channels.classes import Channels, channels
from models.graph.channels.walk import ANSWER
from models.graph.normal import NormalForm
from models.graph.surgery import narrow
from models.graph.surgery.absorb import Absorbed, absorb
from prune import plan as planning
from prune.families import scores, stays
from prune.options import Importance, Options
from prune.plan import PrunePlan
from prune.spare import spared
from prune.widths import Subject


def surgery_of(model: NormalForm, parent: Checkpoint, options: Options) -> Surgery:
    """Return the surgery of a file's network.

    Raises:
        UserError: exit 2 if a pattern of --spare matches no layer.
    """
    found = channels(model, model.captured.whole)
    plain = files.plain(parent, options.network.arch)
    to_plan = spared(model, found, options.spare)
    return Surgery(model, plain, found, to_plan, parent.arch, options.importance, options.max_per_layer or 1)


@dataclass(frozen=True)
class Surgery:
    """The planner and cutter of one network. All networks that it returns are copies.

    Args:
        form: the network's normal form.
        plain: the network as its code builds it, with the form's sizes.
        found: the network's classes of channels.
        plannable: the same classes, with the spared ones fixed.
        limit: share of its channels that a layer may lose.
    """

    form: NormalForm
    plain: nn.Module
    found: Channels
    plannable: Channels
    arch: str
    importance: Importance
    limit: float

    def stays(self) -> dict[int, str]:
        """Return why classes cannot be cut, by class, without the outputs of a network's one last layer: they never can."""
        why = stays(self.plannable, scores(self.form, self.plannable, self.importance), self.importance)
        last = {cls for cls, reason in why.items() if reason == ANSWER}
        makers = {
            place.tensor for place in self.found.places if place.makes and not last.isdisjoint(place.classes.tolist())
        }
        return why if len(makers) > 1 else {cls: reason for cls, reason in why.items() if cls not in last}

    def plan(self, percent: float, base: int) -> PrunePlan:
        """Choose the channels to keep.

        Raises:
            UserError: as planning.plan.
        """
        with user_code.running(self.arch):
            network = Subject(self.plain, self.form, self.plannable, self.arch)
            return planning.plan(network, percent, base, self.importance, self.limit)

    def ready(self, model: NormalForm, chosen: PrunePlan) -> Absorbed:
        """Return a copy with the dropped channels' constant outputs moved into the next layers' biases, where exact."""
        return absorb(model, self.found, chosen.dropped)

    def masked(self, model: NormalForm, chosen: PrunePlan) -> NormalForm:
        """Return a copy of `model` with the dropped channels set to 0."""
        return narrow.masked(model, self.found, chosen.dropped)

    def narrowed(self, model: NormalForm, chosen: PrunePlan) -> NormalForm:
        """Return a narrower copy of `model` without the dropped channels.

        Raises:
            UserError: exit 2 if the network's code cannot have the planned widths.
        """
        try:
            with user_code.running(self.arch):
                small = narrow.narrowed(self.plain, model, self.found, chosen.dropped, self.arch)
        except narrow.NotLegal as fault:
            raise UserError(
                f"--arch {self.arch}: its code cannot have the planned widths: {fault}", "try another --percent"
            ) from fault
        small.cfg = registry.widths(self.arch, small) or model.cfg
        return small
