"""python -m scripts.results: fill the results ladder row by row. Stop it at any time; the same command resumes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli import command
from engine.cli.flags import Parser
from engine.errors import UserError
from engine.system.messages import notice
from scripts.ladder.options import Options

EXAMPLES = (
    "scripts.results --dataset digits",
    "scripts.results --dataset digits --rows headline --seeds 3",
    "scripts.results --dataset digits --table --html",
    "scripts.results --dataset imagefolder --data PATH --rows nin_3x3 'int8*' --epochs 40 --minutes 60",
)


def parser() -> Parser:
    return Parser("scripts.results", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.system.files import check_writable
    from scripts.ladder import outcome, rows as ladder, table
    from scripts.ladder.notes import WRITABLE_FOLDER

    rows, folder = ladder.choose(options.rows, options.arch), Path("results") / options.name
    pages = table.pages(options.readme, options.name)
    for path in (folder / "table.md", *pages):
        check_writable(path, WRITABLE_FOLDER)
    before = table.read(folder)
    if not before and options.table:
        raise UserError(f"no results in {folder}/", "run the same command first without --table")
    if options.page:
        from scripts.page import ladder as page  # needs bokeh

        page.shown(options, options.page, folder, before)  # refuses what cannot be shown before hours of work
    left, failed = 0, dict[Any, UserError]()
    if not options.table:
        from scripts.ladder import fill  # needs torch

        left, failed = fill.fill(options, rows, folder, options.work)
    results = table.read(folder)
    changed = options.table or results != before
    if changed or options.readme or not (folder / "table.md").exists():
        table.write(folder, ladder.of(options.arch), pages if changed else options.readme)
    if not changed:
        print(outcome.nothing_new(folder, before, rows, bool(left and not failed)), file=sys.stderr)
    if options.page:
        try:
            page.write(options, options.page, folder, results)
        except UserError as fault:
            if not failed:
                raise
            notice(f"no web page: {fault}")
    if failed:
        raise outcome.as_one(failed)
    text = table.plain(results, rows)
    if left:
        text += f"\nrows left: {left}; repeat the command to go on"
    shown = outcome.records(results, rows, options.score)
    return {"text": text, "path": folder / "table.md", "left": left, "rows": shown}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
