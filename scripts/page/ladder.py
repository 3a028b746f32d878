"""The web page of a results ladder."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.system.files import OTHER_PAGE, check_writable
from engine.system.messages import notice
from scripts.ladder import rows
from scripts.ladder.options import Options
from scripts.ladder.table import Results
from scripts.page import make, results
from scripts.page.entry import Entry


def shown(options: Options, page: Path, folder: Path, found: Results) -> tuple[list[Entry], list[str]]:
    """Return the entries of the page, and the results without an accuracy.

    Args:
        page: the file to write.
        folder: of the results `found`.

    Raises:
        UserError: exit 6 if the page cannot be written, exit 3 for a result that cannot be shown; exit 2 if --table asks
            for a page without any accuracy.
    """
    check_writable(page, OTHER_PAGE)
    entries, without = results.of_ladder(folder, found, [row.name for row in rows.of(options.arch)])
    if options.table:
        make.refuse_unjudged(entries)
    return entries, without


def write(options: Options, page: Path, folder: Path, found: Results) -> None:
    """Write the page and say so; where no row is done, a notice says why there is none.

    Raises:
        UserError: as shown.
    """
    entries, without = shown(options, page, folder, found)
    if not entries:
        notice(f"no web page: {'; '.join(without) or 'no row was done'}")
        return
    make.write(
        entries,
        page,
        f"Results of the ladder: {options.name}",
        to_measure="The ladder measures none. Give its checkpoints to scripts.report --measure --html.",
        missing=without,
    )
    print(f"written: {page}", file=sys.stderr)
