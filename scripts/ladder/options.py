"""The flags of scripts.results: which rows, how long, on which pictures, and where the table goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.cli import argtypes, datasets
from engine.cli.archs import prefix
from engine.cli.flags import flag, part
from engine.cli.options import Command, Device, Pictures, Printing
from engine.errors import UserError
from engine.system import precision
from scripts.ladder.steps import NETWORK


@dataclass(frozen=True, kw_only=True)
class Machine(Printing, Device):
    """Where to run and what to print."""

    title = "machine"


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """Which rows, how long, and where the table goes."""

    rows: list[str] = flag(
        "--rows", nargs="+", default=["all"], metavar="ROW",
        help="names, patterns like 'int8*', headline, or all (default: all)",
    )  # fmt: skip
    arch: str = flag(
        "--arch", type=argtypes.arch, default=NETWORK, metavar="NAME",
        help="another network than NIN, as prune.train names it: it has the rows that need none of NIN's relatives",
    )  # fmt: skip
    epochs: int | None = flag(
        "--epochs", type=argtypes.number(int, 1, 100_000), metavar="N",
        help="of a float training; refining and quantizing take half (default: as each recipe says)",
    )  # fmt: skip
    seeds: int = flag("--seeds", type=argtypes.number(int, 1, 1000), default=1, metavar="K", help="seeds 1 to K")
    minutes: float | None = flag(
        "--minutes", type=argtypes.number(float, 0, open_low=True), metavar="M",
        help="stop cleanly after M minutes; the same command goes on from there",
    )  # fmt: skip
    jobs: int = flag(
        "--jobs", type=argtypes.number(int, 1, 64), default=1, metavar="J",
        help="rows at once, for a GPU that one row does not fill (default: 1)",
    )  # fmt: skip
    recipe: str = flag(
        "--recipe", type=argtypes.original, choices=["default", "original", "seed"], default="default",
        help="original (or seed): that repository's",
    )  # fmt: skip
    precision: str = flag("--precision", choices=precision.CHOICES, default="auto", help=precision.HELP)
    table: bool = flag(
        "--table", action="store_true",
        help="run nothing, write table and pictures from what is there; needs --dataset (and --data, --val) alone",
    )  # fmt: skip
    html: Path | bool | None = flag(
        "--html", nargs="?", const=True, type=argtypes.page, metavar="F.html",
        help="all results as a web page, which needs no network (default: runs/results/NAME/report.html; needs the "
        "extra [report])",
    )  # fmt: skip
    readme: list[Path] = flag(
        "--readme", type=argtypes.path, nargs="+", default=[], metavar="F",
        help="put the table between the markers <!-- results:NAME --> of these files, its headline rows between "
        "<!-- headline:NAME --> (default: docs/results.md, README.md and README.zh-CN.md, where they have them)",
    )  # fmt: skip
    data: Pictures = part(
        Pictures,
        dataset={
            "choices": [name for name in datasets.ALL if name not in datasets.BOXES],
            "help": "results belong to one: name it",
        },
    )
    machine: Machine = part(
        Machine, threads={"help": "CPU threads, shared by the --jobs (default: OMP_NUM_THREADS for each, else all)"}
    )

    def __post_init__(self) -> None:
        if self.data.dataset is None:
            raise UserError("results belong to one data set", f"name it: --dataset {datasets.IN_WORDS}")

    @property
    def dataset(self) -> str:
        """Which data set; there always is one."""
        return str(self.data.dataset)

    @property
    def original(self) -> bool:
        """Whether the original's own recipes are asked for."""
        return self.recipe == "original"

    @property
    def name(self) -> str:
        """The folder of the results: the data set's, and the network's where it is not NIN."""
        name = self.data.root.resolve().name if self.data.dataset == "imagefolder" else self.dataset
        name = name if self.arch == NETWORK else f"{name}-{prefix(self.arch)}"
        name = re.sub(r"[^\w.-]+", "-", name)
        return f"{name}-val{self.data.val}" if self.data.val else name

    @property
    def work(self) -> Path:
        """The folder that the steps run in."""
        return Path("runs/results") / self.name

    @property
    def page(self) -> Path | None:
        """The web page that is asked for, if one is."""
        return self.work / "report.html" if self.html is True else self.html or None
