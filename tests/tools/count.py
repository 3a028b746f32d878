"""python -m tests.tools.count [ROOT] [--json]: count parts of a checkout of this project, for figures before and after.

It reads syntax trees and imports nothing of the checkout. Tests are counted in lines only.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.tools.house import ROOT, arrows, circles, is_face, modules, parsed

KEYS = {
    "state_dict", "cfg", "best_acc", "transforms", "arch", "arch_args", "dataset", "metrics", "provenance", "stage",
}  # fmt: skip
"""Keys of a checkpoint's dict. Other dicts with one of these keys are counted, too."""
KINDS = {"dorefa", "affine", "ternary", "binary"}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORT = (ast.Import, ast.ImportFrom)


class Count(NamedTuple):
    """One figure; `where` names its files or functions, if they are few."""

    key: str
    says: str
    value: int
    where: list[str]


def counts(root: Path) -> list[Count]:
    """Return all figures of a checkout."""
    found = modules(root)
    files = {str(path.relative_to(root)): path for path in found.values()}
    targets = arrows(found)
    engine = {name for name in found if name.split(".")[0] == "engine" and not is_face(found[name])}
    inside = sum(len(targets[name] & engine) for name in engine)
    rings = [" <-> ".join(ring) for ring in circles(targets)]
    nodes = {file: list(ast.walk(parsed(path))) for file, path in files.items()}
    every = [node for of_file in nodes.values() for node in of_file]
    keys = [file for file, of_file in nodes.items() if any(key_of(node) in KEYS for node in of_file)]
    kinds = [file for file, of_file in nodes.items() if any(getattr(node, "value", None) in KINDS for node in of_file)]
    functions = [
        (node, f"{file}:{node.lineno} {node.name}")
        for file, of_file in nodes.items()
        for node in of_file
        if isinstance(node, FUNCTION)
    ]
    length, long = max(((node.end_lineno or 0) - node.lineno + 1, where) for node, where in functions)
    many, wide = max((parameters(node), where) for node, where in functions)
    code = [*files.values(), *root.glob("setup.py")]
    return [
        Count("import_circles", "import circles", len(rings), rings),
        Count("engine_files", "files of engine/, without packages that define nothing", len(engine), []),
        Count("engine_arrows", "import arrows between them", inside, []),
        Count("dict_str_any", "dict[str, Any]", sum(map(is_open_dict, every)), []),
        Count("namespace", "Namespace", sum(names(node, "Namespace") for node in every), []),
        Count("any", "Any", sum(names(node, "Any") for node in every), []),
        Count("key_files", "files that name a key of a checkpoint", len(keys), keys),
        Count("kind_files", "files that name a kind of quantizer", len(kinds), kinds),
        Count("longest_function", "longest function, lines", length, [long]),
        Count("most_parameters", "longest list of parameters", many, [wide]),
        Count(
            "inner_imports", "imports inside functions", sum(len(inner_imports(parsed(p))) for p in files.values()), []
        ),
        Count("code_lines", "lines of code", sum(map(lines, code)), []),
        Count("test_lines", "lines of tests", sum(map(lines, sorted((root / "tests").rglob("*.py")))), []),
    ]


def key_of(node: ast.AST) -> object:
    """Return the constant key of a subscript or of a call of `get`; None for any other node."""
    asked = None
    if isinstance(node, ast.Subscript):
        asked = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        asked = node.args[0]
    return asked.value if isinstance(asked, ast.Constant) else None


def names(node: ast.AST, word: str) -> int:
    """Count how often a node is this name: as a name, as an attribute (`argparse.Namespace`), or in an import."""
    if isinstance(node, IMPORT):
        return sum(alias.name == word for alias in node.names)
    return int(getattr(node, "id", None) == word or getattr(node, "attr", None) == word)


def is_open_dict(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]"


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's parameters except `self` and `cls`; `*args` and `**more` count as one each."""
    a = node.args
    named = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg]
    return len(named) - (named[:1] in (["self"], ["cls"]))


def inner_imports(tree: ast.Module) -> set[ast.stmt]:
    """Return the import statements inside functions."""
    functions = (node for node in ast.walk(tree) if isinstance(node, FUNCTION))
    return {node for function in functions for node in ast.walk(function) if isinstance(node, IMPORT)}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m tests.tools.count", description=(__doc__ or "").partition(": ")[2])
    p.add_argument("root", nargs="?", type=Path, default=ROOT, metavar="ROOT", help="a checkout (default: this one)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = p.parse_args(argv)
    if not (args.root / "engine").is_dir():
        p.error(f"{args.root} is no checkout of this project: it has no folder engine/")
    found = counts(args.root)
    if args.json:
        print(json.dumps({c.key: {"value": c.value, "where": c.where} for c in found}, indent=1))
        return 0
    for c in found:
        print(f"{c.value:>7,}  {c.says}" + (f": {', '.join(c.where)}" if c.where else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
