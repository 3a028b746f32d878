"""The page: one file of HTML that needs no network, with its plots and its table by Bokeh.

Bokeh has all that the page needs in one library: a table that sorts, plots with names under the pointer, and its own
JavaScript to put into the page. Plotly has no such table, and its JavaScript is more than twice as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bokeh
from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.cli.naming import called
from engine.errors import UserError
from engine.system.files import OTHER_PAGE, write_text
from scripts.page import curves, layers, overview, scatter
from scripts.page.entry import Entry, Judged, distinct
from scripts.table import note, score_of

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
"""What the page may load: nothing from anywhere. Bokeh makes the cells of its table by eval."""


def refuse_unjudged(entries: Sequence[Entry]) -> None:
    """Refuse a page on which nothing would be measured.

    Raises:
        UserError: exit 2.
    """
    if all(entry.row.accuracy is None for entry in entries):
        names = ", ".join(entry.name for entry in entries[:3]) + (", ..." if len(entries) > 3 else "")
        score = score_of([entry.row for entry in entries]).name
        text = f"--html: nobody has evaluated {names or 'any row'}, so the page would show no {score}"
        raise UserError(text, f"evaluate a file first, e.g. {called('prune.train --evaluate F')}, or leave --html out")


def write(
    entries: Sequence[Entry],
    path: Path,
    title: str,
    measured_on: str = "",
    to_measure: str = "",
    missing: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        entries: the baseline first.
        title: its heading.
        measured_on: the machine that milliseconds are of.
        to_measure: how milliseconds are got, where there are none.
        missing: in words, the results that the page cannot show.

    Raises:
        UserError: exit 2 where nothing was judged, exit 6.
    """
    refuse_unjudged(entries)
    write_text(path, html(distinct(entries), title, measured_on, to_measure, missing), OTHER_PAGE)


def html(
    entries: Sequence[Entry], title: str, measured_on: str = "", to_measure: str = "", missing: Sequence[str] = ()
) -> str:
    """Return the page as text; every word of a file is escaped."""
    networks = layers.by_network(entries)
    drawn: dict[str, Any] = {
        "table": overview.table(entries),
        "size": scatter.by_size(entries),
        "time": scatter.by_time(entries),
        "curves": curves.scores(entries),
        "losses": curves.losses(entries),
    }
    for number, those in enumerate(networks.values()):
        drawn |= {f"kept{number}": layers.kept(those), f"bits{number}": layers.bits(those)}
    script, found = components({name: model for name, model in drawn.items() if model is not None})
    plots = {name: Markup(found[name]) if name in found else "" for name in drawn}
    resources = Resources(mode="inline", components=["bokeh", "bokeh-tables"])
    rows = [entry.row for entry in entries]
    score = score_of(rows).name
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html").render(
        policy=POLICY,
        title=title,
        heading=_heading(entries),
        note=note(rows),
        score=score[0].upper() + score[1:] if score.islower() else score,
        remarks=_remarks(entries),
        curve_remarks=_incomparable(curves.judged(entries)),
        measured_on=measured_on,
        to_measure=to_measure,
        missing=missing,
        plots=plots,
        networks=[(name, plots[f"kept{number}"], plots[f"bits{number}"]) for number, name in enumerate(networks)],
        without_bits=any(layer.weight_bits is None for entry in entries for layer in entry.layers),
        no_before=[(entry.name, entry.no_before) for entry in entries if entry.no_before],
        no_curves=[(entry.name, entry.no_curve) for entry in entries if not entry.curve],
        entries=list(enumerate(entries, 1)),
        resources=Markup(resources.render()),
        script=Markup(script),
    )


def _heading(entries: Sequence[Entry]) -> str:
    base, sets = entries[0], ", ".join(dict.fromkeys(entry.row.dataset for entry in entries))
    count = f"{len(entries)} network{'' if len(entries) == 1 else 's'}"
    return f"{count} on {sets}. Baseline: {base.name} ({base.row.type}). Made with Bokeh {bokeh.__version__}."


def _remarks(entries: Sequence[Entry]) -> list[str]:
    """Return what a reader of the plots has to know: the baseline's mark, and what has no point or other pictures."""
    lines = ["The star is the baseline."] if entries[0].row.accuracy is not None else []
    lines.append("Move the pointer over a point to see its name and its numbers.")
    if unjudged := [entry.name for entry in entries if entry.row.accuracy is None]:
        lines.append(f"Not evaluated, so without a point: {', '.join(unjudged)}.")
    judged = [(e.row.dataset, e.row.judged_on, e.row.score.name) for e in entries if e.row.accuracy is not None]
    return lines + _incomparable(judged)


def _incomparable(judged: Sequence[Judged]) -> list[str]:
    """Return why heights in a plot cannot be compared, if they cannot."""
    lines = []
    if len(sets := dict.fromkeys(f"{name} ({part})" for name, part, _ in judged)) > 1:
        lines.append(
            f"The files were evaluated on different pictures, {', '.join(sets)}: their heights cannot be compared."
        )
    if len(scores := dict.fromkeys(score for *_, score in judged)) > 1:
        lines.append(f"The files have different scores, {', '.join(scores)}: their heights cannot be compared.")
    return lines
