"""Where the toolkit lies: its packages are imported from there, whatever the working folder holds.

Users run the commands from their own projects, and `python -m` looks into the working folder first. A project with a
`models/` or an `engine/` of its own would take the place of ours. So every package of the toolkit imports this module,
and importing it has one effect: a finder for the names in PACKAGES, and for no others, stands before Python's own.

`python -m prune.train` needs a working folder without a `prune` and without a `model_compression`. The console script, `model-compression prune.train`,
needs nothing: it starts here. What a user's code finds under these names: models/user_code.py.
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
    """An import hook that finds top-level packages of some names in some folders, and nothing else.

    Args:
        names: of the packages.
        folders: where they are looked for, in this order.
    """

    def __init__(self, names: Collection[str], folders: Sequence[str]) -> None:
        self.names, self.folders = names, folders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Python's protocol for meta path finders; `path` is None for top-level packages."""
        return PathFinder.find_spec(name, self.folders) if path is None and name in self.names else None


sys.meta_path.insert(0, Finder(PACKAGES, [str(HOME)]))


def console() -> int:
    """What the console script `model-compression` calls."""
    from scripts.console import run

    return run()


if __name__ == "__main__":
    sys.exit(console())
