"""The modules of the toolkit as the tests of the house see them: their sources, imports and calls, by the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "engine": set[str](),
    "models": {"engine"},
    "prune": {"engine", "models"},
    "quant": {"engine", "models"},
    "bn_merge": {"engine", "models", "quant"},
    "deploy": {"engine", "models", "quant", "bn_merge"},
    "scripts": {"engine", "models", "prune", "quant", "bn_merge", "deploy"},
}


@cache
def sources() -> dict[str, Path]:
    """Every module of the toolkit by its dotted name; packages by the name of their folder."""
    found = {}
    for folder in MAY_IMPORT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(sources()[name].read_text(encoding="utf-8"))


@cache
def commands() -> tuple[str, ...]:
    """Modules with a `main` of their own, by their dotted name (`bn_merge.__main__`, which runs as `bn_merge`)."""
    return tuple(
        name
        for name in sources()
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree(name).body)
    )


def imported(name: str) -> Iterator[str]:
    """The modules of this project that a module imports anywhere in it: at its top, in functions, for types alone."""
    for node in ast.walk(tree(name)):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative imports hide where they lead"
            targets = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for target in targets:
            yield from (known for known in sources() if target == known or target.startswith(f"{known}."))


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a module, with what is called as it is written: `torch.load`, `eval`."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node
