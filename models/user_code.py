"""A user's code: where `--arch` finds it, and whose `models` an `import models` means while it runs.

A user's project may hold packages that are called like ours: a `models/`, an `engine/`, a `scripts/`. sys.modules has
one place for each name. So the project's packages stand there for as long as its code is imported, built or run
(`with running(arch):`), and ours before and after. A name that the project does not use stays ours throughout: a
network may import `models.blocks` where its project has no `models`.

What that code raises becomes an error line in check.py; what `--arch` may say is checked in engine/cli/argtypes.py.
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
HINT = f"name a module or file that Python can import, and a function in it: {FORMS}"


class Project:
    """A context manager around every run of a user's code. One project has one, however often its code runs inside itself.

    Args:
        folders: where the code and what it imports are looked for, before the rest of sys.path.
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        self.folders = folders
        own = [folder for folder in folders if folder != str(HOME)]
        self.finder = Finder([name for name in PACKAGES if _holds(own, name)], own)
        self.away: dict[str, ModuleType] = {}  # modules of these names that do not stand in sys.modules: theirs or ours
        self.depth = 0
        sys.path += [folder for folder in folders if folder not in sys.path]  # for what it imports when it runs later

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
                with contextlib.suppress(ValueError):  # the user's code may change sys.path, too
                    sys.path.remove(folder)
            self._change()

    def _change(self) -> None:
        """Let the modules that are away and those that stand in sys.modules change places."""
        names = self.finder.names
        away = {name: m for name, m in sys.modules.items() if name.partition(".")[0] in names} if names else {}
        for name in away:
            del sys.modules[name]
        sys.modules.update(self.away)
        self.away = away

    def __deepcopy__(self, memo: dict[int, Any]) -> Project:
        """A copy of a network belongs to the same project."""
        return self


def _holds(folders: Sequence[str], name: str) -> bool:
    """Whether a project has a package or a module of this name; a folder without Python files (of weights, say) is none."""
    spec = PathFinder.find_spec(name, folders)
    if spec is None or spec.loader is not None:
        return spec is not None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    return any(next(place.glob(pattern), None) for place in places for pattern in ("*.py", "*/*.py"))


_project = cache(Project)


def running(arch: str) -> AbstractContextManager[None]:
    """Around code of the network that `--arch` names; nothing for a network of ours."""
    if ":" not in arch:
        return nullcontext()
    place, here = arch.rpartition(":")[0], os.getcwd()
    top = _top(Path(place).resolve()) if place.endswith(".py") else here
    return _project(tuple(dict.fromkeys((str(top), here))))


def _top(file: Path) -> Path:
    """The folder that a file is imported from: its own, or that of the outermost package it is in."""
    folder = file.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def imported(arch: str) -> Callable[..., nn.Module]:
    """The function that `--arch` names; its module is imported with its own packages around it.

    Raises:
        Misdeclared: exit 2 for a missing file, function, or whatever the module raises, with the line where it stands.
    """
    place, _, name = arch.rpartition(":")
    with check.user_code(arch, HINT), running(arch):
        module = _from_file(arch, Path(place).resolve()) if place.endswith(".py") else importlib.import_module(place)
        function = getattr(module, name, None)
        functions = [known for known, value in vars(module).items() if callable(value)]
    if function is None:
        close = get_close_matches(name, functions, n=1)
        raise Misdeclared(f"--arch {arch}: {place} has no {name}", f"did you mean {close[0]}?" if close else HINT)
    if not callable(function):
        raise Misdeclared(f"--arch {arch}: {name} is not a function", HINT)
    return function


def _from_file(arch: str, file: Path) -> ModuleType:
    if not file.is_file():
        raise Misdeclared(f"--arch {arch}: there is no such file", "paths are seen from the working folder")
    name = ".".join(file.relative_to(_top(file)).with_suffix("").parts)
    module = importlib.import_module(name)
    if Path(module.__file__ or "").resolve() != file:
        raise Misdeclared(f"--arch {arch}: Python has another module called {name}", "give the file another name")
    return module
