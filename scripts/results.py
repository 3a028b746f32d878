"""python -m scripts.results: fill the results ladder row by row. Stop it at any time; the same command resumes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import command
from engine.cli.flags import Parser
from engine.errors import UserError
from engine.system.said import notice
from scripts.ladder.options import Options

if TYPE_CHECKING:
    from scripts.ladder.runner import Node
    from scripts.ladder.table import Results
    from scripts.page.entry import Entry

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
    from scripts.ladder import rows as ladder, table
    from scripts.ladder.notes import WRITABLE_FOLDER
    from scripts.ladder.result import Done

    rows, folder = ladder.choose(options.rows, options.arch), Path("results") / options.name
    pages = table.pages(options.readme, options.name)
    for path in (folder / "table.md", *pages):
        check_writable(path, WRITABLE_FOLDER)
    before = table.read(folder)
    if not before and options.table:
        raise UserError(f"no results in {folder}/", "run the same command first without --table")
    if options.page:
        _page(options, folder, before)  # before hours of work
    left, failed = 0, None
    if not options.table:
        from scripts.ladder import fill  # needs torch

        left, failed = fill.fill(options, rows, folder, options.work)
    results = table.read(folder)
    if options.table or options.readme or results != before or not (folder / "table.md").exists():
        table.write(folder, ladder.of(options.arch), pages if options.table or results != before else options.readme)
    if not options.table and results == before:
        there = sum(len(before.get(row.name, ())) for row in rows)
        found = f"{folder}/ already held {there} results of these rows"
        stopped = left and not failed
        told = f"stopped before any row was done; {found}" if stopped else f"nothing new: {found}, and none was added"
        print(told, file=sys.stderr)
    if options.page:
        try:
            _write_page(options, folder, results)
        except UserError as fault:
            if not failed:
                raise
            notice(f"no web page: {fault}")
    if failed:
        raise _as_one(failed)
    text = table.plain(results, rows)
    if left:
        text += f"\nrows left: {left}; repeat the command to go on"
    shown = [
        {
            "row": row.name,
            "seed": result.seed,
            "status": result.status,
            options.score.name: result.accuracy if isinstance(result, Done) else None,
        }
        for row in rows
        for result in results.get(row.name, ())
    ]
    return {"text": text, "path": folder / "table.md", "left": left, "rows": shown}


def _page(options: Options, folder: Path, found: Results) -> tuple[list[Entry], list[str]]:
    """Return what the web page shows, and the results without an accuracy; refuse at once what cannot be shown."""
    import bokeh  # noqa: F401  without it nothing is run

    from engine.system.files import OTHER_PAGE, check_writable
    from scripts.ladder import rows as ladder
    from scripts.page import make, results

    if options.page:
        check_writable(options.page, OTHER_PAGE)
    shown = results.of_ladder(folder, found, [row.name for row in ladder.of(options.arch)])
    if options.table:
        make.refuse_unjudged(shown[0])
    return shown


def _write_page(options: Options, folder: Path, found: Results) -> None:
    from scripts.page import make

    entries, without = _page(options, folder, found)
    if not options.page:
        return
    if not entries:
        notice(f"no web page: {'; '.join(without) or 'no row was done'}")
        return
    make.write(
        entries,
        options.page,
        f"Results of the ladder: {options.name}",
        to_measure="The ladder measures none. Give its checkpoints to scripts.report --measure --html.",
        missing=without,
    )
    print(f"written: {options.page}", file=sys.stderr)


def _as_one(failed: dict[Node, UserError]) -> UserError:
    """Return the error that all failed steps share, else the first error with a hint to the logs."""
    from scripts.ladder.steps import STEPS

    node, fault = next(iter(failed.items()))
    if len({(str(f), f.hint, f.code) for f in failed.values()}) == 1:
        return UserError(str(fault), f"{STEPS[node.step].module} says: {fault.hint}", fault.code)
    return UserError(
        f"{len(failed)} steps failed, the first one {node.step}: {fault}", f"see {node.folder}/*.log", fault.code
    )


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
