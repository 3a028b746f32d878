"""The ladder's output: the table in its folder and on pages, and the plots of curves, size and kept channels."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import BAD_CHECKPOINT, UserError
from engine.system import figures
from engine.system.files import write_bytes, write_text
from engine.system.messages import notice
from engine.system.packages import install
from engine.system.terminal import columns
from engine.tasks.score import ACCURACY as SCORE, Score
from scripts.ladder import result as stored
from scripts.ladder.notes import WRITABLE_FOLDER
from scripts.ladder.result import Diverged, Done, Result, Stale
from scripts.ladder.rows import LadderRow, of_group
from scripts.ladder.steps import NETWORK
from scripts.table import SIZE, ResultRow, grid, score_of, shown

Results = dict[str, list[Result]]
"""The results of each row, by its name, in the order of their seeds."""

HEADER = ("row", "epochs", "n", SCORE.name, "MACs", "parameters", SIZE, "compression", "loss")
HEADLINE = {
    "network": "row", "epochs": "epochs", SCORE.name: SCORE.name, "loss, points": "loss", SIZE: SIZE,
    "compression": "compression",
}  # fmt: skip
"""Columns of the headline table: their header, and the column of HEADER that each one shows."""
PAGES = (Path("docs/results.md"), Path("README.md"), Path("README.zh-CN.md"))

NAMED = 5
"""Most rows to list as not run. A larger number of rows is only counted."""
BASE = "nin"  # the baseline of the other rows
NIN = "NIN with its 5x5 second stage"
"""The baseline in words, where the ladder is NIN's own."""
PRUNED = ("prune50", "prune50_x8", "prune50_x16", "gc_prune40")  # the rows whose widths are shown


def read(folder: Path) -> Results:
    """Read all results of a folder.

    Raises:
        UserError: exit 3 for a damaged file, or for two results of one seed made from different files of a step.
    """
    found: Results = {}
    first: dict[tuple[int, str], tuple[str, Path]] = {}
    for path in sorted(folder.glob("*-s*.json")):
        result = stored.load(path)
        for step, made in result.made_from.items():
            known, other = first.setdefault((result.seed, step), (made, path))
            if known != made:
                raise UserError(
                    f"{other} and {path} are made from different files of the step {step}",
                    "delete the wrong one; its row runs again",
                    BAD_CHECKPOINT,
                )
        found.setdefault(result.row, []).append(result)
    return {name: sorted(results, key=lambda r: r.seed) for name, results in found.items()}


def write(folder: Path, rows: list[LadderRow], pages: Sequence[Path] = ()) -> Results:
    """Write table.md, the plots, and the part of each of `pages` between its markers. Return the results.

    Args:
        rows: all rows of the ladder, with or without results.
    """
    results = read(folder)
    text = markdown(results, rows)
    write_text(folder / "table.md", text, WRITABLE_FOLDER)
    texts = {"results": text, "headline": headline(results, rows)}
    for path in pages:
        was = path.read_text(encoding="utf-8")
        now = _marked(folder.name).sub(lambda found: found[1] + texts[found["kind"]] + found[3], was)
        if now != was:
            write_text(path, now, WRITABLE_FOLDER)
            print(f"updated {path}", file=sys.stderr)
    for name, picture in draw(results, rows).items():
        write_bytes(folder / name, picture, remedy=WRITABLE_FOLDER)
    return results


def markdown(results: Results, rows: list[LadderRow]) -> str:
    """Return the table in Markdown, one line a row that was run: the mean over seeds.

    With two or more seeds, +- the sample standard deviation follows.
    """
    return "\n".join([grid(_table(results, rows), padded=False).rstrip("\n"), *_note(results, rows)]) + "\n"


def headline(results: Results, rows: list[LadderRow]) -> str:
    """The rows of the group `headline`, in few columns."""
    chosen = of_group("headline", rows)
    _, *lines = _table(results, chosen)
    columns, score = [HEADER.index(column) for column in HEADLINE.values()], _score(results).name
    header = [score if column == SCORE.name else column for column in HEADLINE]
    table = [header, *([cells[column] for column in columns] for cells in lines)]
    shown_results = {row.name: results.get(row.name, []) for row in chosen}
    return "\n".join([grid(table, padded=False).rstrip("\n"), *_note(shown_results, chosen)]) + "\n"


def plain(results: Results, rows: list[LadderRow]) -> str:
    """Return the same table for a terminal."""
    return "\n".join([*columns(_table(results, rows)), *_note(results, rows)]) + "\n"


def _table(results: Results, rows: list[LadderRow]) -> list[list[str]]:
    base = mean(done(results.get(BASE, [])))
    header = [_score(results).name if column == SCORE.name else column for column in HEADER]
    return [header, *(_cells(row, results[row.name], base) for row in rows if results.get(row.name))]


def _score(results: Results) -> Score:
    """Return the score of a ladder's rows."""
    return score_of([known for found in results.values() if (known := mean(done(found)))])


def _note(results: Results, rows: list[LadderRow]) -> list[str]:
    """Return an empty line and a note: data set and machine of the figures, and rows without results."""
    ended = [result for found in results.values() for result in done(found)]
    missing = [row.label for row in rows if not results.get(row.name)]
    told = f"Not run: {', '.join(missing) if len(missing) <= NAMED else f'{len(missing)} of {len(rows)} rows'}."
    if not ended:
        return ["", told] if missing else []
    spread = (
        ", +- the standard deviation over n seeds" if any(len(done(found)) > 1 for found in results.values()) else ""
    )
    what = "; ".join(sorted({f"{r.pictures:,} {r.judged_on} pictures of {r.dataset}" for r in ended}))
    where = "; ".join(sorted({machine for r in ended for machine in r.machine.split("; ")}))
    return [
        "",
        f"{what}; {_score(results).name} of the last epoch{spread}; {where}. "
        + (
            f"Compression and loss (points) are against {NIN if base[0].arch in (None, NETWORK) else base[0].label}. "
            if (base := done(results.get(BASE, [])))
            else ""
        )
        + "Size counts stored bits, not a file."
        + (f" {told}" if missing else ""),
    ]


def done(found: list[Result]) -> list[Done]:
    return [result for result in found if isinstance(result, Done)]


def mean(seeds: list[Done]) -> ResultRow | None:
    """Return the mean of one row's results as a row of the table, None if there are none."""
    if not seeds:
        return None
    values = [result.accuracy for result in seeds]
    return ResultRow(
        type=seeds[0].label,
        dataset=seeds[0].dataset,
        epochs="/".join(dict.fromkeys(result.epochs for result in seeds)),
        accuracy=statistics.mean(values),
        macs=round(statistics.mean(result.macs for result in seeds)),
        params=round(statistics.mean(result.params for result in seeds)),
        size_bits=round(statistics.mean(result.size_bits for result in seeds)),
        remarks="",
        judged_on=seeds[0].judged_on,
        file="",
        n=len(seeds),
        std=statistics.stdev(values) if len(values) > 1 else None,
        score=seeds[0].score,
    )


def _cells(row: LadderRow, found: list[Result], base: ResultRow | None) -> list[str]:
    lost = [f"diverged (seed {r.seed}, in {r.diverged_in})" for r in found if isinstance(r, Diverged)]
    lost += [f"to be run again (seed {r.seed})" for r in found if isinstance(r, Stale)]
    known = mean(done(found))
    if known is None:
        cells = {SCORE.name: "; ".join(lost)}
    else:
        cells = shown(known, base if row.name != BASE else None)
        cells[SCORE.name] = "; ".join([cells[SCORE.name], *lost])
    cells["row"] = row.label
    return [cells.get(column, "") for column in HEADER]


def pages(given: Sequence[Path], name: str) -> list[Path]:
    """Return the files to write the table of a data set into: those given, else those of PAGES here with its markers.

    Raises:
        UserError: exit 2 for a given file without the markers, before hours of work are spent.
    """
    for path in given:
        if not _has_place(path, name):
            raise UserError(
                f"{path} has no markers for the table",
                f"write <!-- results:{name} --> and <!-- /results:{name} --> into it",
            )
    return list(given) or [path for path in PAGES if _has_place(path, name)]


def _has_place(path: Path, name: str) -> bool:
    try:
        return bool(_marked(name).search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


def _marked(name: str) -> re.Pattern[str]:
    """The places of a page that the whole table (`results:NAME`) or its headline rows (`headline:NAME`) fill."""
    name = re.escape(name)
    return re.compile(rf"(<!-- (?P<kind>results|headline):{name} -->\n).*?(<!-- /(?P=kind):{name} -->)", re.S)


def draw(results: Results, rows: list[LadderRow]) -> dict[str, bytes]:
    """Draw curves.png and kept.png of each row's lowest seed, and size.png and headline.png of the means.

    Return nothing without matplotlib.
    """
    if not figures.installed():
        notice(f"no plots without matplotlib: {install('report')}")
        return {}
    from scripts.ladder import plots

    firsts = [seeds[0] for row in rows if (seeds := done(results.get(row.name, [])))]
    means = {
        row.name: known for row in rows if row.metric == "final" and (known := mean(done(results.get(row.name, []))))
    }
    drawn = {
        "curves.png": plots.curves([result for result in firsts if result.curve]),
        "size.png": plots.size(means),
        "headline.png": plots.size(
            {row.name: means[row.name] for row in of_group("headline", rows) if row.name in means}
        ),
        "kept.png": plots.kept([result for result in firsts if result.row in PRUNED]),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}
