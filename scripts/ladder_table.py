"""The ladder as people look at it: the table in its folder and in the READMEs, learning curves, size, kept channels."""

from __future__ import annotations

import io
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.files import write_bytes, write_text
from scripts.ladder import ROWS, Row

HEADER = (
    "row", "epochs", "n", "accuracy", "MACs", "parameters", "size, MB (stored bits / 8e6)", "compression", "loss",
)  # fmt: skip


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All results of a folder by row name, in the order of their seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-s*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["row"], []).append(result)
    return {name: sorted(results, key=lambda r: r["seed"]) for name, results in found.items()}


def write(folder: Path, rows: list[Row], readmes: Sequence[Path] = ()) -> str:
    """Write table.md, the pictures, and the part of each of `readmes` between its markers; gives the table of `rows`."""
    results = read(folder)
    text = markdown(results, list(ROWS))
    write_text(folder / "table.md", text)
    for path in readmes:
        was = path.read_text(encoding="utf-8")
        write_text(path, _marked(folder.name).sub(lambda found: found[1] + text + found[2], was))
    for name, picture in pictures(results).items():
        write_bytes(folder / name, picture)
    return markdown(results, rows)


def markdown(results: dict[str, list[dict[str, Any]]], rows: list[Row]) -> str:
    """One line a row: mean over seeds, +- the sample standard deviation where there are two or more."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    base = _done(results.get("nin", []))
    for row in rows:
        lines.append("| " + " | ".join(_cells(row, results.get(row.name, []), base)) + " |")
    done = [result for found in results.values() for result in found if result["status"] == "done"]
    if done:
        what = "; ".join(sorted({f"{r['pictures']:,} {r['judged_on']} pictures of {r['dataset']}" for r in done}))
        where = "; ".join(sorted({r["machine"] for r in done}))
        lines += [
            "",
            f"{what}; accuracy of the last epoch, +- the standard deviation over n seeds; {where}. "
            "Compression and loss (points) are against NIN with its 5x5 second stage. Size counts stored bits, not a file.",
        ]
    return "\n".join(lines) + "\n"


def _done(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in found if result["status"] == "done"]


def _cells(row: Row, found: list[dict[str, Any]], base: list[dict[str, Any]]) -> list[str]:
    done = _done(found)
    lost = [f"diverged (seed {r['seed']}, in {r['diverged_in']})" for r in found if r["status"] == "diverged"]
    if not done:
        return [row.label, "", "", "; ".join(lost) or "not run", "", "", "", "", ""]
    values = [result["accuracy"] for result in done]
    accuracy = f"{statistics.mean(values):.2f} %"
    if len(values) > 1:
        accuracy += f" +- {statistics.stdev(values):.2f}"
    first = done[0]
    sizes = statistics.mean(r["size_bits"] for r in done)
    ratio = loss = "-"
    if base and row.name != "nin":
        whole = statistics.mean(r["size_bits"] for r in base)
        ratio = f"{100 * (1 - sizes / whole):.2f} %"
        loss = f"{statistics.mean(r['accuracy'] for r in base) - statistics.mean(values):+.2f}"
    return [
        row.label, "/".join(dict.fromkeys(r["epochs"] for r in done)), str(len(done)), "; ".join([accuracy, *lost]),
        f"{first['macs']:,}", f"{first['params']:,}", f"{sizes / 8e6:.4f}", ratio, loss,
    ]  # fmt: skip


def check_markers(path: Path, name: str) -> None:
    """Find out before hours of work whether a file has the place for the table of a data set.

    Raises:
        UserError: exit 2 if it has not.
    """
    if not path.is_file() or not _marked(name).search(path.read_text(encoding="utf-8")):
        raise UserError(
            f"{path} has no place for the table", f"write <!-- results:{name} --> and <!-- /results:{name} --> into it"
        )


def _marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- results:{re.escape(name)} -->\n).*?(<!-- /results:{re.escape(name)} -->)", re.S)


def pictures(results: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    """curves.png, size.png and kept.png of the lowest seed of each row; nothing without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return {}
    matplotlib.use("Agg")
    from scripts import ladder_pictures

    firsts = [_done(results[row.name])[0] for row in ROWS if _done(results.get(row.name, []))]
    drawn = {
        "curves.png": ladder_pictures.curves([r for r in firsts if r["curve"]]),
        "size.png": ladder_pictures.size([r for r in firsts if r["row"] != "prune50_raw"]),
        "kept.png": ladder_pictures.kept(
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
