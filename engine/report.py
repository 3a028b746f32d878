"""One table for all commands: rows of results as Markdown, CSV, JSON and a picture. Where rows come from: scripts/."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import UserError
from engine.files import write_bytes, write_json, write_text


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
    "type", "data set", "epochs", "accuracy", "MACs", "parameters",
    "size, MB (stored bits / 8e6)", "compression", "loss", "remarks",
)  # fmt: skip
SEED_HEADER = (*HEADER[:4], "GFLOPs (MACs / 2^30)", "Para(M) (/ 2^20)", *HEADER[6:])
NOTE = (
    "The first row is the baseline: compression is 1 - size / its size, loss is its accuracy minus the row's, in points. "
    "Size counts the stored bits of every tensor (codes at their bit width, scales, biases and BN at 32), not a file. "
    "MACs are multiply-accumulates of convolutions and linear layers on one picture."
)


def cells(rows: list[ResultRow], units: str = "plain") -> list[list[str]]:
    """The table as text, a list a row.

    Args:
        units: "plain" for counts, "seed" for the original's (MACs / 2^30 called GFLOPs, parameters / 2^20).
    """
    base, table = rows[0], []
    for number, row in enumerate(rows):
        macs, params = f"{row.macs:,}", f"{row.params:,}"
        if units == "seed":
            macs, params = f"{row.macs / 2**30:.2f}", f"{row.params / 2**20:.2f}"
        ratio = f"{100 * (1 - row.size_bits / base.size_bits):.2f} %" if number else "-"
        loss = f"{base.accuracy - row.accuracy:+.2f}" if number else "-"
        table.append([
            row.type, row.dataset, row.epochs, f"{row.accuracy:.2f} %", macs, params,
            f"{row.size_bits / 8e6:.4f}", ratio, loss, row.remarks,
        ])  # fmt: skip
    return table


def markdown(rows: list[ResultRow], units: str = "plain") -> str:
    """A Markdown table, padded so that it also reads well in a terminal."""
    lines = [list(SEED_HEADER if units == "seed" else HEADER), *cells(rows, units)]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def columns(rows: list[list[str]], left: int = 1) -> list[str]:
    """Lines of a terminal table as wide as its cells: the first `left` columns flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if n < left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def outputs(path: Path) -> list[Path]:
    """The files that `write` makes: Markdown, CSV, JSON, PNG.

    Raises:
        UserError: exit 2 if `path` has the ending of one of the siblings.
    """
    siblings = [path.with_suffix(suffix) for suffix in (".csv", ".json", ".png")]
    if path in siblings:
        raise UserError(f"--save {path} names a sibling of the Markdown file", f"name {path.with_suffix('.md')}")
    return [path, *siblings]


def write(rows: list[ResultRow], path: Path, units: str = "plain") -> list[Path]:
    """Write `path` (Markdown) and its siblings .csv, .json and, with matplotlib, .png; gives what was written.

    Raises:
        UserError: exit 6.
    """
    _, table, data, picture_path = outputs(path)
    write_text(path, f"{markdown(rows, units)}\n{NOTE}\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([SEED_HEADER if units == "seed" else HEADER, *cells(rows, units)])
    write_text(table, text.getvalue())
    write_json(data, json.loads(json.dumps([asdict(row) for row in rows])))
    written = [path, table, data]
    picture = draw(rows)
    if picture:
        write_bytes(picture_path, picture)
        written.append(picture_path)
    return written


def draw(rows: list[ResultRow]) -> bytes | None:
    """Accuracy against size as a PNG; None without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    colours = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for number, row in enumerate(rows):
        axis.plot(
            row.size_bits / 8e6, row.accuracy, "o" if number else "*", markersize=9 if number else 14,
            color=colours[number % 20], label=f"{number + 1}  {row.type}",
        )  # fmt: skip
        axis.annotate(
            f"{number + 1}", (row.size_bits / 8e6, row.accuracy), (6, 4), textcoords="offset points", fontsize=9
        )
    axis.set_xscale("log")
    axis.set(xlabel="size in MB (stored bits / 8e6, log scale)", ylabel="accuracy in %",
             title="accuracy against size: " + ", ".join(sorted({row.dataset for row in rows})))  # fmt: skip
    axis.grid(alpha=0.3, which="both")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    pyplot.close(figure)
    return buffer.getvalue()
