"""The table of the page: a click on a header sorts by its numbers. The text of a cell wraps.

What is longer than three lines is cut off; the pointer shows all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import (
    CellFormatter,
    ColumnDataSource,
    DataTable,
    HTMLTemplateFormatter,
    InlineStyleSheet,
    NumberFormatter,
    TableColumn,
)

from scripts.page.entry import Entry
from scripts.table import compression, loss, score_of, shown

ROW = 50
"""Pixels of a row: three lines of text."""
HEAD = 52
"""Pixels of the headers: two lines."""
TALLEST = 850
"""Pixels; a longer table scrolls."""
WIDEST = 1240

_LOOK = """
.slick-cell { white-space: normal; line-height: 1.25; overflow-wrap: anywhere; text-overflow: clip; padding: 2px 4px; }
.slick-header-columns, .slick-header-column.ui-state-default { height: 40px; background: #eef1f5; }
.slick-column-name { white-space: normal; line-height: 1.2; font-weight: 600; display: block; }
"""


@dataclass(frozen=True)
class _Column:
    """A column: its header with the unit, its width in pixels, and the number or text that it is sorted by."""

    title: str
    width: int
    value: Callable[[Entry, Entry], Any]
    digits: str = ""


def _columns(entries: Sequence[Entry]) -> dict[str, _Column]:
    score = score_of([entry.row for entry in entries])
    columns = {
        "number": _Column("#", 28, lambda e, base: entries.index(e) + 1, "0"),
        "name": _Column("file", 112, lambda e, base: e.name),
        "type": _Column("type", 158, lambda e, base: e.row.type),
        "dataset": _Column("data set", 64, lambda e, base: e.row.dataset),
        "epochs": _Column("epochs", 64, lambda e, base: sum(_numbers(e.row.epochs))),
        "score": _Column(f"{score.name} ({score.unit})", 74, lambda e, base: _number(e.row.accuracy), "0.00"),
        "loss": _Column("loss (points)", 58, lambda e, base: _compared(e, base, loss)),
        "size": _Column("size (bytes)", 76, lambda e, base: e.size, "0,0"),
        "compression": _Column("compression (%)", 86, lambda e, base: _compared(e, base, compression), "0.00"),
        "packed": _Column("packed (bytes)", 76, lambda e, base: _number(e.row.packed_bytes), "0,0"),
        "time": _Column("time (ms)", 52, lambda e, base: _number(e.row.milliseconds), "0.00"),
        "macs": _Column("MACs", 88, lambda e, base: e.row.macs, "0,0"),
        "params": _Column("parameters", 82, lambda e, base: e.row.params, "0,0"),
        "remarks": _Column("remarks", 200, lambda e, base: e.row.remarks),
    }
    if not any(entry.row.packed_bytes for entry in entries):
        del columns["packed"], columns["time"]
    return columns


def _compared(entry: Entry, base: Entry, how: Callable[..., float | None]) -> float:
    """Return a comparison with the baseline to two decimals, as it is shown: -0.001 is 0."""
    return math.nan if entry is base else round(_number(how(entry.row, base.row)), 2) + 0.0


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _numbers(epochs: str) -> list[int]:
    """Return the epochs of the stages: `10+6` has 16; one that is not known counts as none."""
    return [int(part) for part in epochs.replace("/", "+").split("+") if part.isdecimal()]


def table(entries: Sequence[Entry]) -> DataTable:
    """Return the table; its first row is the baseline."""
    columns = _columns(entries)
    data = {name: [column.value(entry, entries[0]) for entry in entries] for name, column in columns.items()}
    data["epochs_text"] = [entry.row.epochs for entry in entries]
    data["loss_text"] = [shown(e.row, None if e is entries[0] else entries[0].row)["loss"] for e in entries]
    spare = WIDEST - 20 - sum(column.width for column in columns.values())  # 20 for a bar that scrolls
    return DataTable(
        name="table",
        source=ColumnDataSource(data),
        columns=[
            TableColumn(
                field=name,
                title=column.title,
                width=column.width + (max(spare, 0) if name == "remarks" else 0),
                formatter=_formatter(name, column),
            )
            for name, column in columns.items()
        ],
        index_position=None,
        editable=False,
        reorderable=False,
        autosize_mode="none",
        row_height=ROW,
        width=WIDEST,
        height=min(TALLEST, HEAD + ROW * len(entries)),
        stylesheets=[InlineStyleSheet(css=_LOOK)],
    )


def _formatter(name: str, column: _Column) -> CellFormatter:
    """Return how a cell is written; `<%-` of a template escapes."""
    if column.digits:
        return NumberFormatter(
            format=column.digits, text_align="right", nan_format="not evaluated" if name == "score" else "-"
        )
    if name == "loss":  # the formats of NumberFormatter give 0 no sign
        return HTMLTemplateFormatter(template='<div style="text-align: right"><%- loss_text %></div>')
    field = "epochs_text" if name == "epochs" else "value"
    return HTMLTemplateFormatter(template=f'<span title="<%- {field} %>"><%- {field} %></span>')
