"""python -m scripts.report: one table of any number of checkpoints, as Markdown, CSV, JSON, a picture and a web page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag
from engine.cli.naming import called, refuse_input
from engine.cli.options import Command
from engine.errors import UserError
from engine.system.messages import notice
from engine.system.packages import install

if TYPE_CHECKING:
    from models.files import Opened
    from scripts.page.entry import Entry
    from scripts.page.past import Known
    from scripts.table import ResultRow

EXAMPLES = (
    "scripts.report models_save/nin.pth models_save/nin_refine.pth models_save/nin_w8a8.pth",
    "scripts.report models_save/*.pth --save runs/report.md --units original",
    "scripts.report models_save/*.pth --measure --html",
    "scripts.report results/digits/nin-s1.json results/digits/w*-s1.json --html runs/digits.html",
)


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The options of scripts.report: the files, and the form of the table."""

    files: list[Path] = flag(
        "files", type=argtypes.path, nargs="*", metavar="F",
        help="checkpoints, or results of the ladder (results/NAME/*-s*.json); the first is the baseline",
    )  # fmt: skip
    save: Path = flag(
        "--save", type=argtypes.markdown, default=Path("runs/report.md"), metavar="F.md",
        help="the Markdown file; .csv, .json, .png go beside it: t.md has t.csv (default: runs/report.md)",
    )  # fmt: skip
    html: Path | bool | None = flag(
        "--html", nargs="?", const=True, type=argtypes.page, metavar="F.html",
        help="a web page as well, which needs no network: the table to sort, plots with names, layers, learning "
        "curves, commands (default: beside --save; needs the extra [report])",
    )  # fmt: skip
    units: str = flag(
        "--units", type=argtypes.original, choices=["plain", "original", "seed"], default="plain",
        help="of the table; original (or seed): MACs / 2^30 and parameters / 2^20, as in that repository's",
    )  # fmt: skip
    measure: bool = flag(
        "--measure", action="store_true",
        help="pack every network and run it: bytes beside counted bits, milliseconds for one picture beside MACs",
    )  # fmt: skip
    archs: list[str] = flag(
        "--arch", type=argtypes.arch, action="append", default=[], metavar="M:F",
        help="a network of your own that some of the files hold; may be given once for each",
    )  # fmt: skip
    weights: Path | None = flag(
        "--weights", type=argtypes.path, metavar="F",
        help="a state_dict of your network (--arch): the baseline, without a measured accuracy",
    )  # fmt: skip
    image_size: int | None = flag(
        "--image_size", type=argtypes.number(int, 8, 1024), metavar="N",
        help="side of the pictures that the network of --weights reads (default: 32)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.files and not self.weights:
            raise UserError("the following arguments are required: F", "name the checkpoints, the baseline first")
        if self.weights and len(self.archs) > 1:
            text = f"--weights {self.weights}: --arch names {len(self.archs)} networks"
            raise UserError(text, f"give --arch once, or describe the file first: {called('scripts.convert')}")
        if self.image_size and not self.weights:
            raise UserError("--image_size without --weights has no effect: files say their own", "leave it out")

    @property
    def inputs(self) -> list[Path]:
        """Every file that is read, the baseline first."""
        return [*([self.weights] if self.weights else []), *self.files]


def parser() -> Parser:
    return Parser("scripts.report", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.system.files import OTHER_PAGE, OTHER_SAVE, check_writable
    from scripts import table

    outputs = table.outputs(options.save)
    page = _page(options)
    for path in (*outputs, *page):
        refuse_input(path, options.inputs, "name another --html" if path in page else "name another --save")
        check_writable(path, OTHER_PAGE if path in page else OTHER_SAVE)
    rows, entries = _read(options, bool(page))
    _say_what_is_not_compared(rows)
    old = [path for path in (*outputs, *page) if path.exists()]
    written = table.write(rows, options.save, options.units)
    for path in page:
        _write_page(options, entries, path)
        written.append(path)
    if replaced := [str(path) for path in old if path in written]:
        print(f"replaced {', '.join(replaced)}", file=sys.stderr)
    for picture in set(outputs) - set(written):
        stale = f"; {picture} is that of an earlier table" if picture in old else ""
        judged = any(row.accuracy is not None for row in rows)
        why = f"without matplotlib: {install('report')}" if judged else "where nothing was evaluated"
        notice(f"no picture {why}{stale}")
    note = f"{table.note(rows)} {_measured_on()}" if options.measure else table.note(rows)
    text = f"{table.markdown(rows, options.units)}\n{note}\nwritten: {', '.join(map(str, written))}"
    shown = {"html": page[0]} if page else {}
    return {"text": text, "path": options.save, **shown, "rows": table.records(rows)}


def _page(options: Options) -> list[Path]:
    """Return the path of the web page; nothing where none is asked for."""
    if not options.html:
        return []
    import bokeh  # noqa: F401  without it no file is read

    return [options.save.with_suffix(".html") if options.html is True else options.html]


def _read(options: Options, paged: bool) -> tuple[list[ResultRow], list[Entry]]:
    """Return a row for each input and, where a page is asked for, what it shows of each."""
    from scripts.page import past

    rows: list[ResultRow] = []
    entries: list[Entry] = []
    known = past.Known()
    for path in options.inputs:
        row, entry = _result(options, path, paged) if path.suffix == ".json" else _network(options, path, paged, known)
        rows.append(row)
        entries += [entry] if entry else []
    if paged:
        from scripts.page import make

        make.refuse_unjudged(entries)
    return rows, entries


def _result(options: Options, path: Path, paged: bool) -> tuple[ResultRow, Entry | None]:
    from scripts.page import results

    found = results.read(path)
    if options.measure:
        notice(f"not measured: {path} holds no network")
    return results.row(path, found), results.entry(path, found) if paged else None


def _network(options: Options, path: Path, paged: bool, known: Known) -> tuple[ResultRow, Entry | None]:
    from scripts import describe
    from scripts.page import files

    opened = _opened(options, path)
    row = describe.row(opened)
    if options.measure:
        row = _timed(opened, row)
    return row, files.entry(opened, row, known) if paged else None


def _timed(opened: Opened, row: ResultRow) -> ResultRow:
    from deploy.racing.measure import measured

    try:
        found = measured(opened)
    except UserError as fault:
        notice(f"not measured: {fault}")
        return row
    return replace(row, packed_bytes=found.size, milliseconds=found.milliseconds)


def _write_page(options: Options, entries: list[Entry], path: Path) -> None:
    from scripts.page import make

    make.write(
        entries,
        path,
        "Compressed networks",
        measured_on=_measured_on() if options.measure else "",
        to_measure="Add --measure to the command: scripts.report --measure --html packs every network and runs it.",
    )


def _measured_on() -> str:
    import torch

    from engine.checkpoint.words import counted
    from engine.system.processor import processor

    return (
        "ms is the median for one picture with the packed file, on the executor that is the fastest for it here: "
        f"{processor()}, {counted(torch.get_num_threads(), 'thread')}."
    )


def _opened(options: Options, path: Path) -> Opened:
    from engine.checkpoint.description import Description
    from quant import restore

    if path is not options.weights:
        return restore.open(path, trusted=options.archs)
    said = Description(arch=next(iter(options.archs), None), image_size=options.image_size or 32)
    return restore.open(path, said.arch, said)


def _say_what_is_not_compared(rows: list[ResultRow]) -> None:
    """Losses across data sets, or of held-out against test pictures, would be numbers without a meaning."""
    from scripts import table

    if rows[0].accuracy is None:
        if len(rows) > 1:
            notice(f"no losses: the baseline, {rows[0].file}, was not evaluated")
        return
    if missing := sum(row.accuracy is None for row in rows):
        notice(f"no loss for {missing} of {len(rows)} rows: not evaluated")
    others = [row for row in rows[1:] if row.accuracy is not None and table.loss(row, rows[0]) is None]
    if others:
        base, *where = dict.fromkeys(f"{row.dataset} ({row.judged_on})" for row in (rows[0], *others))
        notice(
            f"no loss for {len(others)} of {len(rows)} rows: evaluated on {', '.join(where)}, the baseline on {base}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
