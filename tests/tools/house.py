"""The modules of the toolkit for the tests of the house: sources, imports and calls, from syntax trees alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
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


def modules(root: Path) -> dict[str, Path]:
    """Return every module of the toolkit in a checkout by its dotted name; packages by their folder's name."""
    found = {}
    for folder in MAY_IMPORT:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, known: Iterable[str]) -> Iterator[str]:
    """Yield the `known` modules that a file imports anywhere: at the top, in functions, for types only."""
    for node in ast.walk(parsed(path)):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide where they lead"
            targets = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for target in targets:
            yield from (name for name in known if target == name or target.startswith(f"{name}."))


def is_face(path: Path) -> bool:
    """Return whether a module is a package that defines nothing."""
    defines = (ast.FunctionDef, ast.ClassDef)
    return path.name == "__init__.py" and not any(isinstance(node, defines) for node in parsed(path).body)


def arrows(found: dict[str, Path]) -> dict[str, set[str]]:
    """Return the imports of each module, without its own packages and without packages that define nothing."""
    return {
        name: {t for t in imports(path, found) if t != name and not name.startswith(f"{t}.") and not is_face(found[t])}
        for name, path in found.items()
    }


def circles(arrows: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Return the groups of modules that import each other, directly or through others."""
    reach = {name: set(targets) for name, targets in arrows.items()}
    for middle in reach:
        for targets in reach.values():
            if middle in targets:
                targets |= reach[middle]
    return sorted({tuple(sorted(o for o in reach[n] if n in reach[o])) for n in reach if n in reach[n]})


@cache
def sources() -> dict[str, Path]:
    """Return the modules of this checkout."""
    return modules(ROOT)


def tree(name: str) -> ast.Module:
    return parsed(sources()[name])


@cache
def commands() -> tuple[str, ...]:
    """Return the dotted names of modules with a `main` (`bn_merge.__main__` runs as `bn_merge`)."""
    return tuple(
        name
        for name in sources()
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree(name).body)
    )


def imported(name: str) -> Iterator[str]:
    """Yield the modules of this project that a module imports."""
    return imports(sources()[name], sources())


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in a module with the called name as written: `torch.load`, `eval`."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node
