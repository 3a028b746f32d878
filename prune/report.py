"""The texts of pruning: notices and warnings on stderr, and the lines of the result. Its steps: apply.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from engine.checkpoint.history import History, Prune
from engine.checkpoint.words import counted
from engine.data.splits import Data
from engine.errors import UserError
from engine.system.messages import notice, some, warning
from engine.system.terminal import columns
from engine.tasks.base import Evaluation
from engine.tasks.score import Score
from models.graph.flow import used_tensors
from models.graph.normal import NormalForm
from prune.plan import PrunePlan
from prune.rounding import to_drop
from prune.widths import FEWEST

ROWS = 40
"""Most rows of the table of widths."""


def say_what_stays(reasons: Mapping[int, str], rows: Mapping[int, int], computed: Mapping[str, int]) -> None:
    """Print to stderr how many channels cannot be cut, by reason.

    Args:
        reasons: the reason of each class of channels.
        rows: the channels of each class, where it has several.
        computed: the numbers of channels without a class, by reason; see prune.computed.
    """
    counts = Counter(computed)
    for cls, why in reasons.items():
        counts[why] += rows.get(cls, 1)
    for why, count in counts.most_common():
        notice(f"{counted(count, 'channel')} cannot be cut: {why}")


def say_what_follows(form: NormalForm) -> None:
    """Print to stderr which attributes of the network's code follow its layers' new widths."""
    if form.captured.followed:
        notice(f"numbers in the network's code that follow the new widths: {some(form.captured.followed)}")


def say_what_keeps_its_size(form: NormalForm) -> None:
    """Print to stderr which modules keep their size because evaluation does not run them."""
    used = {id(tensor) for tensor in used_tensors(form)}
    held = [
        name
        for name in form.captured.vanished
        if any(id(tensor) not in used for tensor in form.get_submodule(name).state_dict(keep_vars=True).values())
    ]
    if held:
        notice(
            f"not run in evaluation, so sizes stay: {some(held)}; your own training code may fail where they read channels "
            "that are cut"
        )


def say_what_differs(chosen: PrunePlan, strict: bool) -> None:
    """Print to stderr where the plan differs from the request.

    Raises:
        UserError: exit 2 with `strict` if a layer would keep fewer channels than FEWEST.
    """
    if chosen.raised:
        text = f"percent {chosen.percent:g} would leave fewer than {FEWEST} channels in {some(chosen.raised)}"
        if strict:
            raise UserError(text, "take a smaller --percent, or leave --strict out")
        warning(f"{text}: kept its smallest legal width; lower --percent, or limit each layer with --max_per_layer")
    if chosen.whole:
        warning(f"left {some(chosen.whole)} whole: no multiple of {chosen.base} is a legal width")
    if chosen.stuck:
        warning(f"left {some(chosen.stuck)} whole: the network's code allows no smaller width")
    if chosen.limited:
        notice(f"--max_per_layer kept channels with low scores in {some(chosen.limited)}")
    if why := _why_nothing(chosen):
        notice(f"the plan drops nothing: {why}")


def say_what_is_lost(left: int, chosen: PrunePlan) -> None:
    """Print to stderr how many dropped channels had a constant output that no bias can replace."""
    if left:
        gone = sum(chosen.before) - sum(chosen.widths)
        notice(
            f"{left:,} of the {counted(gone, 'dropped channel')} had a constant output that no bias of the next layer replaces "
            "exactly, for example because of zero padding; re-estimating BN statistics corrects most of the difference"
        )


def _why_nothing(chosen: PrunePlan) -> str:
    """Return why a plan drops nothing, "" if it drops something."""
    if chosen.cfg != chosen.cfg_before:
        return ""
    total = sum(chosen.before)
    if not chosen.percent:
        return "--percent is 0"
    if not to_drop(chosen.percent, total):
        return f"--percent {chosen.percent:g} of {counted(total, 'channel')} is less than one"
    rounding = f"every layer's nearest multiple of {chosen.base} is its present width"
    reasons = {
        f"{counted(len(chosen.raised), 'layer')} would keep fewer than {FEWEST} channels": chosen.raised,
        rounding: chosen.rounded,
        f"no multiple of {chosen.base} fits {counted(len(chosen.whole), 'layer')}": chosen.whole,
        f"--max_per_layer keeps all channels of {counted(len(chosen.limited), 'layer')}": chosen.limited,
        f"the network's code allows no smaller width for {counted(len(chosen.stuck), 'layer')}": chosen.stuck,
    }
    return "; ".join(why for why, names in reasons.items() if names)


def widths(chosen: PrunePlan, history: History) -> list[str]:
    """Return the lines on widths before and after, by layer, and on the shares of channels dropped."""
    first = next((sum(stage.cfg_before) for stage in history if isinstance(stage, Prune)), None)
    again = []
    if first is not None:  # pruned before: add the share dropped since the network was whole
        share = 100 * (1 - sum(chosen.cfg) / first)
        again = [f"in all      {first} -> {sum(chosen.cfg)} channels since the first pruning, {share:.2f} % dropped"]
    return [
        *_table(chosen),
        f"percent     requested {100 * chosen.percent:.2f} %, achieved {100 * chosen.achieved:.2f} % of the channels that can be cut",
        *_channels(chosen),
        *again,
    ]


def _table(chosen: PrunePlan) -> list[str]:
    """Return one line a layer. Above ROWS layers, show the ROWS // 2 with the largest losses, in network order."""
    rows = [*zip(chosen.names, chosen.before, chosen.widths, strict=True)]
    shown = sorted(range(len(rows)), key=lambda n: rows[n][2] / rows[n][1])[
        : len(rows) if len(rows) <= ROWS else ROWS // 2
    ]
    cells = [[_group(chosen, n), str(rows[n][1]), str(rows[n][2])] for n in sorted(shown)]
    table = columns([["layer", "before", "kept"], *cells])
    if left := len(rows) - len(shown):
        return [*table, f"... and {counted(left, 'layer')} with smaller losses: --json lists all"]
    return [*table, f"cfg before  {chosen.cfg_before}", f"cfg after   {chosen.cfg}"]


def _group(chosen: PrunePlan, number: int) -> str:
    """Name a family in the table: its first layer, and the number of other layers that make its channels."""
    others = chosen.others[number] if chosen.others else 0
    return f"{chosen.names[number]} (+{others})" if others else chosen.names[number]


def _channels(chosen: PrunePlan) -> list[str]:
    gone, can, every = len(chosen.dropped), chosen.cuttable, sum(chosen.before) + len(chosen.stays) + chosen.computed
    return [f"channels    {can:,} of {every:,} can be cut; {gone:,} go, {100 * gone / every:.2f} % of all"]


def scores(evaluations: dict[str, Evaluation], data: Data, score: Score) -> list[str]:
    """Return the lines on the score after each step."""
    mended = evaluations.get("bn_reestimated")
    return [
        f"{score.name} on {len(data.test):,} {data.part} pictures of {data.info.quoted}:",
        "  " + ", ".join(f"{name} {evaluations[name].score:.2f} {score.unit}" for name in ("before", "masked", "sliced"))
        + (f", BN re-estimated {mended.score:.2f} {score.unit}" if mended else ", nothing dropped: BN left as it was"),
    ]  # fmt: skip
