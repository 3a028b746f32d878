"""One table for all commands: rows of results as Markdown, CSV, JSON and a picture. Where rows come from: scripts/.

Markdown and terminal tables are for people; CSV and JSON for machines: plain numbers, units in the names.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.system.files import write_bytes, write_json, write_text
from engine.tasks.score import ACCURACY as SCORE


@dataclass(frozen=True)
class ResultRow:
    """One network.

    Args:
        type: what was done to it, in words.
        epochs: of each training stage, "10+6".
        accuracy: percent, last epoch, on all test pictures (or, `judged_on` says so, held-out ones).
        size_bits: bits of every stored tensor; a count, not a file size.
    """

    type: str
    dataset: str
    epochs: str
    accuracy: float
    macs: int
    params: int
    size_bits: int
    remarks: str
    judged_on: str
    file: str


HEADER = (
    "type", "data set", "epochs", SCORE.name, "MACs", "parameters",
    "size, MB (stored bits / 8e6)", "compression", "loss", "remarks",
)  # fmt: skip


ORIGINAL_HEADER = (*HEADER[:4], "GFLOPs (MACs / 2^30)", "Para(M) (/ 2^20)", *HEADER[6:])


ORIGINAL_UNITS = ("original", "seed")
NOTE = (
    "The first row is the baseline: compression is 1 - size / its size, loss is its accuracy minus the row's, in points, "
    "and - where the row was judged on other pictures. "
    "Size counts the stored bits of every tensor (codes at their bit width, scales, biases and BN at 32), not a file. "
    "MACs are multiply-accumulates of convolutions and linear layers on one picture."
)


def compression(row: ResultRow, base: ResultRow) -> float:
    """What is saved of the baseline's size, percent."""
    return 100 * (1 - row.size_bits / base.size_bits)


def loss(row: ResultRow, base: ResultRow) -> float | None:
    """What is lost of the baseline's accuracy, points; None where the two were not judged on the same pictures."""
    if (row.dataset, row.judged_on) != (base.dataset, base.judged_on):
        return None
    return base.accuracy - row.accuracy


def cells(rows: list[ResultRow], units: str = "plain") -> list[list[str]]:
    """The table as text, a list a row.

    Args:
        units: "plain" for counts, "original" (or "seed") for that repository's (MACs / 2^30 called GFLOPs, parameters / 2^20).
    """
    table = []
    for number, row in enumerate(rows):
        macs, params = f"{row.macs:,}", f"{row.params:,}"
        if units in ORIGINAL_UNITS:
            macs, params = _short(row.macs / 2**30), _short(row.params / 2**20)
        lost = loss(row, rows[0]) if number else None
        table.append([
            row.type, row.dataset, row.epochs, f"{row.accuracy:.2f} {SCORE.unit}", macs, params, f"{row.size_bits / 8e6:.4f}",
            f"{compression(row, rows[0]):.2f} %" if number else "-",
            "-" if lost is None else f"{round(lost, 2) + 0.0:+.2f}",  # + 0.0: no "-0.00"
            row.remarks,
        ])  # fmt: skip
    return table


def _short(value: float) -> str:
    """Two decimals, as in the original's tables (0.92, 0.06); below what they show, three digits: 0.0436."""
    return f"{value:.2f}" if value >= 0.05 or value <= 0 else f"{value:.{2 - math.floor(math.log10(value))}f}"


def records(rows: list[ResultRow]) -> list[dict[str, Any]]:
    """The rows for machines: the fields of ResultRow and, None in the first row, `compression_percent` and `loss_points`.

    Percentages are rounded to four places: finer than one of 50,000 pictures, coarser than the noise of floats.
    """
    made = []
    for number, row in enumerate(rows):
        lost = loss(row, rows[0]) if number else None
        made.append({
            **asdict(row), "accuracy": round(row.accuracy, 4),
            "compression_percent": round(compression(row, rows[0]), 4) if number else None,
            "loss_points": None if lost is None else round(lost, 4) + 0.0,
        })  # fmt: skip
    return made


CSV_HEADER = (
    "type", "dataset", "judged_on", "epochs", SCORE.column, "macs", "params", "size_bits", "size_MB",
    "compression_percent", "loss_points", "remarks", "file",
)  # fmt: skip


def comma_separated(rows: list[ResultRow]) -> str:
    """The rows as CSV; a cell is empty where there is no number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_HEADER, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records(rows):
        writer.writerow({**record, SCORE.column: record["accuracy"], "size_MB": record["size_bits"] / 8e6})
    return text.getvalue()


def markdown(rows: list[ResultRow], units: str = "plain") -> str:
    """A Markdown table, padded so that it also reads well in a terminal."""
    lines = [list(ORIGINAL_HEADER if units in ORIGINAL_UNITS else HEADER), *cells(rows, units)]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def outputs(path: Path) -> list[Path]:
    """The files that `write` makes: Markdown, CSV, JSON, PNG: `t.md` has `t.csv` beside it, `v1.2` has `v1.2.csv`.

    Raises:
        UserError: exit 2 if `path` has the ending of one of the siblings.
    """
    endings = (".csv", ".json", ".png")
    if path.suffix.lower() in endings:
        raise UserError(f"--save {path} names a sibling of the Markdown file", f"name {path.with_suffix('.md')}")
    stem = path.stem if path.suffix.lower() in (".md", ".markdown", ".txt") else path.name
    return [path, *(path.parent / f"{stem}{ending}" for ending in endings)]


def write(rows: list[ResultRow], path: Path, units: str = "plain") -> list[Path]:
    """Write `path` (Markdown) and its siblings .csv, .json and, with matplotlib, .png; gives what was written.

    Args:
        units: of the Markdown table, see `cells`.

    Raises:
        UserError: exit 6.
    """
    _, table, data, picture_path = outputs(path)
    write_text(path, f"{markdown(rows, units)}\n{NOTE}\n")
    write_text(table, comma_separated(rows))
    write_json(data, records(rows))
    written = [path, table, data]
    picture = draw(rows)
    if picture:
        write_bytes(picture_path, picture)
        written.append(picture_path)
    return written


def draw(rows: list[ResultRow]) -> bytes | None:
    """Accuracy against size as a PNG, a number a row, the legend below; None without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    names = [f"{number}  {row.type}" for number, row in enumerate(rows, 1)]
    names = [name if len(name) <= 120 else f"{name[:119]}…" for name in names]
    columns = 2 if len(names) > 3 and max(map(len, names)) <= 72 else 1
    height = 5.2 + 0.17 * math.ceil(len(names) / columns)
    figure, axis = pyplot.subplots(figsize=(10, height), layout="constrained")
    sizes = [row.size_bits / 8e6 for row in rows]
    for number, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        mark = "osD^vP"[number // 10 % 6] if number else "*"  # ten colours can be told apart; then another shape
        axis.plot(size, row.accuracy, mark, markersize=8 if number else 13, color=f"C{number % 10}", alpha=0.85)
    wide = max(sizes) > 4 * min(sizes)
    if wide:
        axis.set_xscale("log")
        steps = (1, 2, 5) if max(sizes) < 1e4 * min(sizes) else (1,)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=99))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.xaxis.set_major_formatter(lambda size, _: f"{size:.6f}".rstrip("0").rstrip("."))
    axis.margins(0.07)
    axis.set(xlabel=f"size in MB (stored bits / 8e6{', log scale' if wide else ''})", ylabel=SCORE.label)
    axis.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    axis.set_title(f"{SCORE.name} against size: " + ", ".join(sorted({row.dataset for row in rows})), parse_math=False)
    axis.grid(alpha=0.3)
    legend = figure.legend(
        axis.lines, names, loc="outside lower center", ncols=columns, fontsize=8, frameon=False, labelspacing=0.35
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ is a $
    figure.draw_without_rendering()  # from here on it is known where points are
    _number(axis, list(zip(sizes, (row.accuracy for row in rows), strict=True)))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    pyplot.close(figure)
    return buffer.getvalue()


def _number(axis: Any, points: list[tuple[float, float]]) -> None:
    """Number the points from 1, one label for those that cover each other, where it hides no point and no label."""
    to_pt = 72 / axis.figure.dpi  # what follows is in typographic points
    places = axis.transData.transform(points) * to_pt
    groups: list[list[int]] = []
    for number, place in enumerate(places):
        near = next((group for group in groups if abs(places[group[0]] - place).max() < 6), None)
        if near is None:
            groups.append([number])
        else:
            near.append(number)
    edge = axis.bbox.extents * to_pt
    halves = (6, *[4] * (len(points) - 1))  # of the markers
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(places, halves, strict=True)]
    for group in groups:
        x, y = places[group[0]]
        words = [", ".join(str(n + 1) for n in group[k : k + 4]) for k in range(0, len(group), 4)]
        width = max(1.45 * (len(word) + sum(map(str.isdigit, word))) for word in words)  # half of the label's box
        tall = 5.5 * len(words)
        for far in (6, 14, 24, 36, 50, 66):
            ways = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
            shifts = [(a * (far + width - 2 * abs(b)), b * (far + tall - 2 * abs(a))) for a, b in ways]
            boxes = [(x + a - width, y + b - tall, x + a + width, y + b + tall) for a, b in shifts]
            free = [n for n, box in enumerate(boxes) if _inside(box, edge) and not any(_meet(box, t) for t in taken)]
            if free:
                break
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        axis.annotate(
            "\n".join(words), points[group[0]], shifts[chosen], textcoords="offset points", fontsize=9, ha="center",
            va="center", linespacing=1.0,
            arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.6, "shrinkA": 0, "shrinkB": 4} if far > 6 else None,
        )  # fmt: skip


def _inside(box: Any, edge: Any) -> bool:
    return box[0] > edge[0] and box[1] > edge[1] and box[2] < edge[2] and box[3] < edge[3]


def _meet(one: Any, other: Any) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
