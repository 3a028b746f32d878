"""Import the toolkit's packages from the folder of this file, whatever the working folder contains.

Users run the commands from their own projects, and `python -m` searches the working folder first. A project with its
own `models/` or `engine/` would hide the toolkit's package. Every package of the toolkit therefore imports this module.
The import has one effect: it puts a finder for the names in PACKAGES, and for no others, before Python's own finders.

`python -m prune.train` needs a working folder without a `prune` and without a `model_compression`. The console script,
`model-compression prune.train`, has no such limit, because it starts in this file. models/user_code.py describes what
a user's own code finds under these names.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PACKAGES = ("engine", "models", "prune", "quant", "bn_merge", "deploy", "scripts")
HOME = Path(__file__).resolve().parent


class Finder:
    """An import hook that finds the named top-level packages in the given folders, and nothing else.

    Args:
        names: names of the packages.
        folders: folders to search, in this order.
    """

    def __init__(self, names: Collection[str], folders: Sequence[str]) -> None:
        self.names, self.folders = names, folders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of the named packages, else None; `path` is None for top-level packages."""
        return PathFinder.find_spec(name, self.folders) if path is None and name in self.names else None


sys.meta_path.insert(0, Finder(PACKAGES, [str(HOME)]))


def console() -> int:
    """Run the console script `model-compression` and return its exit status."""
    from scripts.console import run

    return run()


if __name__ == "__main__":
    sys.exit(console())
