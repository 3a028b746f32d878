"""Who plans and cuts a file's network, by the classes of channels found in its graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.errors import UserError
from models import files, registry, user_code
from models.graph.channels.classes import Channels, channels
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
    """The surgery of a file's network.

    Raises:
        UserError: exit 2 for patterns that name no layer of it.
    """
    found = channels(model, model.captured.whole)
    plain = files.plain(parent, options.network.arch)
    to_plan = spared(model, found, options.spare)
    return Surgery(model, plain, found, to_plan, parent.arch, options.importance, options.max_per_layer or 1)


@dataclass(frozen=True)
class Surgery:
    """Plans, and makes what the proof of surgery compares. All networks are copies.

    Args:
        plain: the network as its code makes it, of the form's sizes.
        found: the classes of its channels.
        plannable: the same with what is spared fixed.
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
        """Why classes cannot be cut, by class."""
        return stays(self.plannable, scores(self.form, self.plannable, self.importance), self.importance)

    def plan(self, percent: float, base: int) -> PrunePlan:
        with user_code.running(self.arch):
            network = Subject(self.plain, self.form, self.plannable, self.arch)
            return planning.plan(network, percent, base, self.importance, self.limit)

    def ready(self, model: NormalForm, chosen: PrunePlan) -> Absorbed:
        """A copy whose readers' biases absorb the constant output of the dropped channels, where that is exact."""
        return absorb(model, self.found, chosen.dropped)

    def masked(self, model: NormalForm, chosen: PrunePlan) -> NormalForm:
        """`model` with what is to go silent."""
        return narrow.masked(model, self.found, chosen.dropped)

    def narrowed(self, model: NormalForm, chosen: PrunePlan) -> NormalForm:
        """`model` without it."""
        try:
            with user_code.running(self.arch):
                small = narrow.narrowed(self.plain, model, self.found, chosen.dropped, self.arch)
        except narrow.NotLegal as fault:
            raise UserError(
                f"--arch {self.arch}: it cannot be as narrow as planned: {fault}", "take another --percent"
            ) from fault
        small.cfg = registry.widths(self.arch, small) or model.cfg
        return small
