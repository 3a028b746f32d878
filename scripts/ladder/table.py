"""The ladder as people look at it: the table in its folder and in the READMEs, learning curves, size, kept channels."""

from __future__ import annotations

import io
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import BAD_CHECKPOINT, UserError
from engine.system.files import write_bytes, write_text
from engine.system.terminal import columns
from engine.tasks.score import ACCURACY as SCORE
from scripts.ladder import notes
from scripts.ladder.rows import ROWS, Row

HEADER = (
    "row", "epochs", "n", SCORE.name, "MACs", "parameters", "size, MB (stored bits / 8e6)", "compression", "loss",
)  # fmt: skip


READMES = (Path("README.md"), Path("README.zh-CN.md"))


NEEDED = {
    "done": (
        "label", "accuracy", "epochs", "macs", "params", "size_bits", "bytes_counted", "pictures", "judged_on", "dataset",
        "machine", "cfg", "cfg_before", "curve",
    ),
    "diverged": ("diverged_in",),
}  # fmt: skip


"""What the table and the pictures read of a result, by its status."""


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All results of a folder by row name, in the order of their seeds.

    Raises:
        UserError: exit 3 for a damaged file, or two of one seed that are made from different files of a step.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    first: dict[tuple[int, str], tuple[str, Path]] = {}
    for path in sorted(folder.glob("*-s*.json")):
        result = notes.load(path, "row", "seed", "status")
        notes.load(path, *NEEDED.get(result["status"], ()))
        for step, made in result.get("sha256", {}).items():
            known, other = first.setdefault((result["seed"], step), (made, path))
            if known != made:
                raise UserError(
                    f"{other} and {path} are made from different files of the step {step}",
                    "delete the one that does not belong here: its row is made again",
                    BAD_CHECKPOINT,
                )
        found.setdefault(result["row"], []).append(result)
    return {name: sorted(results, key=lambda r: r["seed"]) for name, results in found.items()}


def write(folder: Path, readmes: Sequence[Path] = ()) -> dict[str, list[dict[str, Any]]]:
    """Write table.md, the pictures, and the part of each of `readmes` between its markers; gives the results."""
    results = read(folder)
    text = markdown(results, list(ROWS))
    write_text(folder / "table.md", text)
    for path in readmes:
        was = path.read_text(encoding="utf-8")
        now = _marked(folder.name).sub(lambda found: found[1] + text + found[2], was)
        if now != was:
            write_text(path, now)
            print(f"updated {path}", file=sys.stderr)
    for name, picture in pictures(results).items():
        write_bytes(folder / name, picture)
    return results


def markdown(results: dict[str, list[dict[str, Any]]], rows: list[Row]) -> str:
    """One line a row: mean over seeds, +- the sample standard deviation where there are two or more."""
    lines = ["| " + " | ".join(cells) + " |" for cells in _table(results, rows)]
    lines.insert(1, "|" + "---|" * len(HEADER))
    return "\n".join([*lines, *_note(results)]) + "\n"


def plain(results: dict[str, list[dict[str, Any]]], rows: list[Row]) -> str:
    """The same for a terminal."""
    return "\n".join([*columns(_table(results, rows)), *_note(results)]) + "\n"


def _table(results: dict[str, list[dict[str, Any]]], rows: list[Row]) -> list[list[str]]:
    base = _done(results.get("nin", []))
    return [list(HEADER), *(_cells(row, results.get(row.name, []), base) for row in rows)]


def _note(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What the figures are of and where they were made, below an empty line."""
    done = [result for found in results.values() for result in _done(found)]
    if not done:
        return []
    what = "; ".join(sorted({f"{r['pictures']:,} {r['judged_on']} pictures of {r['dataset']}" for r in done}))
    where = "; ".join(sorted({machine for r in done for machine in r["machine"].split("; ")}))
    return [
        "",
        f"{what}; {SCORE.name} of the last epoch, +- the standard deviation over n seeds; {where}. "
        "Compression and loss (points) are against NIN with its 5x5 second stage. Size counts stored bits, not a file.",
    ]


def _done(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in found if result["status"] == "done"]


def _cells(row: Row, found: list[dict[str, Any]], base: list[dict[str, Any]]) -> list[str]:
    done = _done(found)
    lost = [f"diverged (seed {r['seed']}, in {r['diverged_in']})" for r in found if r["status"] == "diverged"]
    lost += [f"to be run again (seed {r['seed']})" for r in found if r["status"] == "stale"]
    if not done:
        return [row.label, "", "", "; ".join(lost) or "not run", "", "", "", "", ""]
    values = [result["accuracy"] for result in done]
    accuracy = f"{statistics.mean(values):.2f} {SCORE.unit}"
    if len(values) > 1:
        accuracy += f" +- {statistics.stdev(values):.2f}"
    macs, params, sizes = (statistics.mean(r[key] for r in done) for key in ("macs", "params", "size_bits"))
    ratio = loss = "-"
    if base and row.name != "nin":
        whole = statistics.mean(r["size_bits"] for r in base)
        ratio = f"{100 * (1 - sizes / whole):.2f} %"
        lost_points = statistics.mean(r["accuracy"] for r in base) - statistics.mean(values)
        loss = f"{round(lost_points, 2) + 0.0:+.2f}"  # never -0.00
    return [
        row.label, "/".join(dict.fromkeys(r["epochs"] for r in done)), str(len(done)), "; ".join([accuracy, *lost]),
        f"{round(macs):,}", f"{round(params):,}", f"{sizes / 8e6:.4f}", ratio, loss,
    ]  # fmt: skip


def readmes(given: Sequence[Path], name: str) -> list[Path]:
    """The files that the table of a data set goes into: those given, else the READMEs here that have its markers.

    Raises:
        UserError: exit 2 for a given one that has no markers; found out before hours of work.
    """
    for path in given:
        if not _has_place(path, name):
            raise UserError(
                f"{path} has no place for the table",
                f"write <!-- results:{name} --> and <!-- /results:{name} --> into it",
            )
    return list(given) or [path for path in READMES if _has_place(path, name)]


def _has_place(path: Path, name: str) -> bool:
    try:
        return bool(_marked(name).search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


def _marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- results:{re.escape(name)} -->\n).*?(<!-- /results:{re.escape(name)} -->)", re.S)


def pictures(results: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    """curves.png, size.png and kept.png of the lowest seed of each row; nothing without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("notice: no pictures without matplotlib: pip install '.[report]'", file=sys.stderr)
        return {}
    matplotlib.use("Agg")
    from scripts.ladder import pictures

    firsts = [_done(results[row.name])[0] for row in ROWS if _done(results.get(row.name, []))]
    drawn = {
        "curves.png": pictures.curves([r for r in firsts if r["curve"]]),
        "size.png": pictures.size([r for r in firsts if r["row"] != "prune50_raw"]),
        "kept.png": pictures.kept(
            [r for r in firsts if r["row"] in ("prune50", "prune50_x8", "prune50_x16", "gc_prune40")]
        ),
    }
    found = {}
    for name, figure in drawn.items():
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=120)
            found[name] = buffer.getvalue()
    matplotlib.pyplot.close("all")  # type: ignore[attr-defined]
    return found
