"""Import and run a user's code for `--arch`, with the user's own packages in place of this toolkit's.

A user's project may have packages with the names of this toolkit's: a `models/`, an `engine/`, a `scripts/`.
sys.modules has one place for each name. The project's packages are therefore in sys.modules while its code is imported,
built or run (`with running(arch):`), and the toolkit's before and after. A name that the project does not use stays the
toolkit's: a network may import `models.blocks` if its project has no `models`.

check.py turns exceptions of that code into error lines; engine/cli/argtypes.py checks the form of `--arch`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from model_compression import HOME, PACKAGES, Finder
from models import check
from models.check import Misdeclared

FORMS = "package.module:function, or file.py:function"
HINT = f"give a module or file that Python can import, and a function in it: {FORMS}"


class Project:
    """A context manager around every run of a user's code. Each project has one, which can be nested in itself.

    Args:
        folders: searched for the code and its imports before the rest of sys.path.
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        self.folders = folders
        own = [folder for folder in folders if folder != str(HOME)]
        self.finder = Finder([name for name in PACKAGES if _holds(own, name)], own)
        self.away: dict[str, ModuleType] = {}  # modules of these names outside sys.modules
        self.depth = 0
        sys.path += [folder for folder in folders if folder not in sys.path]  # for imports at a later run

    def __enter__(self) -> None:
        self.depth += 1
        if self.depth == 1:
            self._change()
            sys.meta_path.insert(0, self.finder)
            sys.path[:0] = self.folders

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            sys.meta_path.remove(self.finder)
            for folder in self.folders:
                with contextlib.suppress(ValueError):  # the user's code may have changed sys.path
                    sys.path.remove(folder)
            self._change()

    def _change(self) -> None:
        """Exchange the modules in `away` with those in sys.modules."""
        names = self.finder.names
        away = {name: m for name, m in sys.modules.items() if name.partition(".")[0] in names} if names else {}
        for name in away:
            del sys.modules[name]
        sys.modules.update(self.away)
        self.away = away

    def __deepcopy__(self, memo: dict[int, Any]) -> Project:
        """Return the project itself, as a copy of a network belongs to the same project."""
        return self


def _holds(folders: Sequence[str], name: str) -> bool:
    """Return whether a project has a package or module of this name; a folder without Python files does not count."""
    spec = PathFinder.find_spec(name, folders)
    if spec is None or spec.loader is not None:
        return spec is not None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    return any(next(place.glob(pattern), None) for place in places for pattern in ("*.py", "*/*.py"))


_project = cache(Project)


def running(arch: str) -> AbstractContextManager[None]:
    """Return the context for running the code of `--arch`; it does nothing for a network of this toolkit."""
    if ":" not in arch:
        return nullcontext()
    place, here = arch.rpartition(":")[0], os.getcwd()
    top = _top(Path(place).resolve()) if place.endswith(".py") else here
    return _project(tuple(dict.fromkeys((str(top), here))))


def _top(file: Path) -> Path:
    """Return the folder that a file is imported from: its own, or the one above its outermost package."""
    folder = file.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def imported(arch: str) -> Callable[..., nn.Module]:
    """Import the function that `--arch` names; its module sees its project's own packages.

    Raises:
        Misdeclared: for a missing file or function, for a network in place of a function, or for an exception of the module, with its line (exit 2).
    """
    place, _, name = arch.rpartition(":")
    with check.as_misdeclared(arch, HINT), running(arch):
        module = _from_file(arch, Path(place).resolve()) if place.endswith(".py") else importlib.import_module(place)
        function = getattr(module, name, None)
        functions = [known for known, value in vars(module).items() if callable(value)]
    if function is None:
        close = get_close_matches(name, functions, n=1)
        raise Misdeclared(f"--arch {arch}: {place} has no {name}", f"did you mean {close[0]}?" if close else HINT)
    if isinstance(function, nn.Module):
        raise Misdeclared(
            f"--arch {arch}: {name} is a network, not a function that builds one",
            f"name a function: def build(classes=10): return {type(function).__name__}(...)",
        )
    if not callable(function):
        raise Misdeclared(f"--arch {arch}: {name} is not a function", HINT)
    return function


def _from_file(arch: str, file: Path) -> ModuleType:
    if not file.is_file():
        raise Misdeclared(f"--arch {arch}: there is no such file", "give the path as seen from the working folder")
    name = ".".join(file.relative_to(_top(file)).with_suffix("").parts)
    module = importlib.import_module(name)
    if Path(module.__file__ or "").resolve() != file:
        raise Misdeclared(f"--arch {arch}: Python has another module called {name}", "give the file another name")
    return module
