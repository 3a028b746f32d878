"""The flags of scripts.results: rows, epochs, pictures, and the files for the table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.cli import argtypes, datasets
from engine.cli.archs import ARCHS, is_detector, prefix
from engine.cli.flags import flag, part
from engine.cli.machine import OnDevice
from engine.cli.options import Command, Pictures
from engine.errors import UserError
from engine.numerics import precision
from engine.tasks import score as scores
from engine.tasks.score import Score
from scripts.ladder.steps import NETWORK


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The rows, the length of training, and the files for the table."""

    rows: list[str] = flag(
        "--rows", nargs="+", default=["all"], metavar="ROW",
        help="rows by name or pattern like 'int8*', headline, or all (default: all)",
    )  # fmt: skip
    arch: str = flag(
        "--arch", type=argtypes.arch, default=NETWORK, metavar="NAME",
        help="another network than NIN, as in prune.train, for the rows that need no relatives of NIN",
    )  # fmt: skip
    epochs: int | None = flag(
        "--epochs", type=argtypes.number(int, 1, 100_000), metavar="N",
        help="epochs of a float training; refining and quantizing take half (default: those of each recipe)",
    )  # fmt: skip
    seeds: int = flag("--seeds", type=argtypes.number(int, 1, 1000), default=1, metavar="K", help="seeds 1 to K")
    minutes: float | None = flag(
        "--minutes", type=argtypes.number(float, 0, open_low=True), metavar="M",
        help="stop cleanly after M minutes; the same command resumes",
    )  # fmt: skip
    jobs: int = flag(
        "--jobs", type=argtypes.number(int, 1, 64), default=1, metavar="J",
        help="number of steps to run at once, for a GPU that one step does not fill (default: 1)",
    )  # fmt: skip
    recipe: str = flag(
        "--recipe", type=argtypes.original, choices=["default", "original", "seed"], default="default",
        help="original (or seed): the original repository's recipes (default: default)",
    )  # fmt: skip
    precision: str = flag("--precision", choices=precision.CHOICES, default="auto", help=precision.HELP)
    table: bool = flag(
        "--table", action="store_true",
        help="run nothing; write the table and the plots of present results; needs only --dataset (and --data, --val)",
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
    core: str | None = flag(
        "--core", metavar="M,M,...", help="of a detector of your own the modules that are trained, as in prune.train"
    )
    data: Pictures = part(Pictures, dataset={"choices": datasets.ALL, "help": "the data set of the results (required)"})
    machine: OnDevice = part(
        OnDevice, threads={"help": "CPU threads, shared by all --jobs (default: OMP_NUM_THREADS for each, else all)"}
    )

    def __post_init__(self) -> None:
        if self.data.dataset is None:
            raise UserError("results need one data set", f"give --dataset {datasets.IN_WORDS}")
        boxes = self.dataset in datasets.BOXES
        if boxes and self.arch in ARCHS:
            raise UserError(
                f"--dataset {self.dataset} has boxes, but {self.arch} is not a detector",
                "add --arch torchvision:ssdlite320_mobilenet_v3_large, or a detector of your own with --core",
            )
        if not boxes and (self.core or is_detector(self.arch)):
            raise UserError(
                f"{self.arch} is a detector, but {self.dataset} has no boxes",
                f"give --dataset {', '.join(datasets.BOXES[:-1])} or {datasets.BOXES[-1]}",
            )

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return str(self.data.dataset)

    @property
    def score(self) -> Score:
        """The score of the rows."""
        return scores.of("detection" if self.dataset in datasets.BOXES else None)

    @property
    def original(self) -> bool:
        """Return whether to use the original's recipes."""
        return self.recipe == "original"

    @property
    def name(self) -> str:
        """The name of the results' folder: the data set, and the network unless it is NIN."""
        name = self.data.root.resolve().name if self.dataset not in datasets.BUILT_IN else self.dataset
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
