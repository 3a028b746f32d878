"""One table for all commands: rows of results as Markdown, CSV, JSON and a picture. Where rows come from: describe.py.

Markdown and terminal tables are for people; CSV and JSON for machines: plain numbers, units in the names.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.system.files import OTHER_SAVE, write_bytes, write_json, write_text
from engine.tasks import score as scores
from engine.tasks.score import ACCURACY as SCORE, Score
from scripts import plots
from scripts.plots import Point


@dataclass(frozen=True)
class ResultRow:
    """One network, or the mean of `n` networks that differ in their seed.

    Args:
        type: what was done to it, in words.
        epochs: of each training stage, "10+6".
        accuracy: percent, last epoch, on all test pictures (or on held-out ones, if `judged_on` says so); None: never judged.
            For a detector its mAP; `score` says which.
        size_bits: bits of every stored tensor; a count, not a file size.
        std: sample standard deviation of the accuracy over the seeds, in points; None for one seed.
        packed_bytes, milliseconds: of the packed file, and for one picture, where they were measured.
    """

    type: str
    dataset: str
    epochs: str
    accuracy: float | None
    macs: int
    params: int
    size_bits: int
    remarks: str
    judged_on: str
    file: str
    n: int = 1
    std: float | None = None
    packed_bytes: int | None = None
    milliseconds: float | None = None
    score: Score = SCORE


SIZE = "size, MB (stored bits / 8e6)"
HEADER = (
    "type", "data set", "epochs", SCORE.name, "MACs", "parameters", SIZE, "compression", "loss", "remarks",
)  # fmt: skip
MEASURED = {"MACs": "ms", SIZE: "packed file, bytes"}
"""The columns of measured values, each behind its column of counted values."""
ORIGINAL_HEADER = (*HEADER[:4], "GFLOPs (MACs / 2^30)", "Para(M) (/ 2^20)", *HEADER[6:])
ORIGINAL_UNITS = ("original", "seed")
_NOTE = (
    "Compression and loss ({}, in points) are against the first row; - in loss: evaluated on other pictures. "
    "Size counts stored bits, not a file. MACs are of one picture."
)


def note(rows: list[ResultRow]) -> str:
    """Return the lines below a table."""
    return _NOTE.format(score_of(rows).name)


def compression(row: ResultRow, base: ResultRow) -> float:
    """Return the share of the baseline's size that is saved, in percent."""
    return 100 * (1 - row.size_bits / base.size_bits)


def loss(row: ResultRow, base: ResultRow) -> float | None:
    """Return the accuracy lost against the baseline, in points; None if the two were evaluated on different pictures."""
    if row.accuracy is None or base.accuracy is None or (row.dataset, row.judged_on) != (base.dataset, base.judged_on):
        return None
    return base.accuracy - row.accuracy


def shown(row: ResultRow, base: ResultRow | None) -> dict[str, str]:
    """Return the cells of a row as text, by column.

    Args:
        base: the baseline of the table; None if the row is the baseline itself.
    """
    lost = loss(row, base) if base else None
    return {
        "type": row.type,
        "data set": row.dataset,
        "epochs": row.epochs,
        "n": str(row.n),
        SCORE.name: _score(row),
        "MACs": f"{row.macs:,}",
        "ms": "-" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        "packed file, bytes": "-" if row.packed_bytes is None else f"{row.packed_bytes:,}",
        "parameters": f"{row.params:,}",
        SIZE: f"{row.size_bits / 8e6:.4f}",
        "compression": f"{compression(row, base):.2f} %" if base else "-",
        "loss": "-" if lost is None else f"{round(lost, 2) + 0.0:+.2f}",  # + 0.0: no "-0.00"
        "remarks": row.remarks,
    }


def score_of(rows: list[ResultRow]) -> Score:
    """Return the score in the accuracy column: "mAP" if all rows are detectors, "score" if some are."""
    return scores.common(row.score for row in rows)


def _score(row: ResultRow) -> str:
    if row.accuracy is None:
        return "not evaluated"
    return row.score.shown(row.accuracy) + ("" if row.std is None else f" +- {row.std:.2f}")


def header(rows: list[ResultRow], units: str = "plain") -> list[str]:
    """Return the columns of a table. Measured values have columns if a row has them, but not in the original's units."""
    names = ORIGINAL_HEADER if units in ORIGINAL_UNITS else _columns(rows)
    return [score_of(rows).name if name == SCORE.name else name for name in names]


def _columns(rows: list[ResultRow]) -> list[str]:
    if all(row.packed_bytes is None for row in rows):
        return list(HEADER)
    return [name for column in HEADER for name in (column, MEASURED.get(column)) if name]


def cells(rows: list[ResultRow], units: str = "plain") -> list[list[str]]:
    """Return the cells as text, one list for each row; the first row is the baseline.

    Args:
        units: "plain" for counts; "original" (or "seed") for the original repository's units: MACs / 2^30, called GFLOPs,
            and parameters / 2^20.
    """
    table, columns = [], HEADER if units in ORIGINAL_UNITS else _columns(rows)
    for number, row in enumerate(rows):
        line = shown(row, rows[0] if number else None)
        if units in ORIGINAL_UNITS:
            line |= {"MACs": short(row.macs / 2**30), "parameters": short(row.params / 2**20)}
        table.append([line[column] for column in columns])
    return table


def short(value: float) -> str:
    """Return a number with two decimals, as in the original's tables (0.92, 0.06); below 0.05 with three digits: 0.0436."""
    return f"{value:.2f}" if value >= 0.05 or value <= 0 else f"{value:.{2 - math.floor(math.log10(value))}f}"


def records(rows: list[ResultRow]) -> list[dict[str, Any]]:
    """Return the rows for machines: the fields of ResultRow for one seed, `compression_percent` and `loss_points`.

    Both are None in the first row, the baseline. Percentages are rounded to four places: finer than one of 50,000 pictures, coarser than the noise of floats.
    """
    made = []
    for number, row in enumerate(rows):
        lost = loss(row, rows[0]) if number else None
        told = {key: value for key, value in asdict(row).items() if key not in (_NOT_TOLD | _unmeasured(row))}
        told["accuracy"] = None if row.accuracy is None else round(row.accuracy, 4)
        made.append({
            **{row.score.name if key == "accuracy" else key: value for key, value in told.items()},
            "compression_percent": round(compression(row, rows[0]), 4) if number else None,
            "loss_points": None if lost is None else round(lost, 4) + 0.0,
        })  # fmt: skip
    return made


_NOT_TOLD = {"n", "std", "score"}


def _unmeasured(row: ResultRow) -> set[str]:
    return {"packed_bytes", "milliseconds"} if row.packed_bytes is None else set()


CSV_HEADER = (
    "type", "dataset", "judged_on", "epochs", "macs", "params", "size_bits", "size_MB",
    "compression_percent", "loss_points", "remarks", "file",
)  # fmt: skip


def comma_separated(rows: list[ResultRow]) -> str:
    """Return the rows as CSV; a cell without a number is empty."""
    text = io.StringIO()
    measured = () if all(row.packed_bytes is None for row in rows) else ("packed_bytes", "milliseconds")
    score = score_of(rows).column
    columns = (*CSV_HEADER[:4], score, *CSV_HEADER[4:], *measured)
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row, record in zip(rows, records(rows), strict=True):
        writer.writerow({**record, score: record[row.score.name], "size_MB": record["size_bits"] / 8e6})
    return text.getvalue()


def markdown(rows: list[ResultRow], units: str = "plain") -> str:
    """Return a Markdown table, padded so that it also reads well in a terminal."""
    return grid([header(rows, units), *cells(rows, units)], padded=True)


def grid(lines: list[list[str]], padded: bool) -> str:
    """Return lines of cells as Markdown, the header first.

    Args:
        padded: whether all cells of a column are as wide as the widest.
    """
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) if padded else 0 for column in zip(*lines, strict=True)]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * max(3, width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def outputs(path: Path) -> list[Path]:
    """Return the files that `write` makes: Markdown, CSV, JSON, PNG. `t.md` has `t.csv` beside it."""
    return [path, *(path.with_suffix(ending) for ending in (".csv", ".json", ".png"))]


def write(rows: list[ResultRow], path: Path, units: str = "plain") -> list[Path]:
    """Write `path` (Markdown) and its siblings .csv, .json and, with matplotlib, .png; return the paths written.

    Args:
        units: of the Markdown table, see `cells`.

    Raises:
        UserError: exit 6.
    """
    _, table, data, picture_path = outputs(path)
    write_text(path, f"{markdown(rows, units)}\n{note(rows)}\n", OTHER_SAVE)
    write_text(table, comma_separated(rows), OTHER_SAVE)
    write_json(data, records(rows), OTHER_SAVE)
    written = [path, table, data]
    picture = draw(rows)
    if picture:
        write_bytes(picture_path, picture, remedy=OTHER_SAVE)
        written.append(picture_path)
    return written


def draw(rows: list[ResultRow]) -> bytes | None:
    """Return accuracy against size as a PNG, a marker for each row, the baseline a star; None without matplotlib or any accuracy."""
    points = [
        Point(
            row.type,
            row.size_bits / 8e6,
            row.accuracy,
            marker="osD^vP"[number // 10 % 6] if number else "*",  # ten colours can be told apart; then another shape
            colour=f"C{number % 10}",
        )
        for number, row in enumerate(rows)
        if row.accuracy is not None
    ]
    datasets = ", ".join(sorted({row.dataset for row in rows}))
    return plots.size(points, datasets, score_of(rows)) if points else None
