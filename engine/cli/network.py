"""The flags that choose the network and the file it starts from; options.py has the other groups of flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.cli.archs import ARCHS, is_detector, prefix
from engine.cli.argtypes import arch, number, path, widths
from engine.cli.flags import Options, flag
from engine.cli.naming import input_file
from engine.errors import UserError

BOXES_HINT = "add --dataset scenes, or --dataset coco or yolo with --data DIR"
SHORT = ("nin", "nin_gc", "separable")
"""The networks of --type 0, 1 and 2."""


@dataclass(frozen=True, kw_only=True)
class Architecture(Options):
    """The network to use; `default_arch` is the command's default."""

    title = "network"
    arch: str | None = flag(
        "--arch", type=arch, metavar="NAME",
        help=f"{', '.join(ARCHS)}, torchvision:NAME, timm:NAME, or package.module:function or file.py:function for your "
        "own (default: the input file's, else the command's)",
    )  # fmt: skip
    type: int | None = flag(
        "--type", type=number(int, 0, 2, hint="0: nin, 1: nin_gc, 2: separable"), metavar="N",
        help="the original's short names: 0 = nin, 1 = nin_gc, 2 = separable",
    )  # fmt: skip
    cfg: list[int] | None = flag(
        "--cfg", type=widths, metavar="W,W,...", help="channels of each layer (default: the network's own)"
    )
    classes: int | None = flag(
        "--classes", type=number(int, 2, 100_000), metavar="N", help="number of classes (default: the data set's)"
    )
    core: str | None = flag(
        "--core", metavar="M,M,...",
        help="for your own detector: names of the modules to train, such as backbone,head",
    )  # fmt: skip
    default_arch: str = "nin"

    def __post_init__(self) -> None:
        if self.type is None:
            return
        meant = SHORT[self.type]
        if self.arch not in (None, meant):
            raise UserError(f"--type {self.type} means {meant}, but --arch is {self.arch}", "give one of them")
        object.__setattr__(self, "arch", meant)

    @property
    def name(self) -> str:
        """The network, if no file names one."""
        return self.arch or self.default_arch

    @property
    def prefix(self) -> str:
        """The start of default file names, if no file names the network."""
        return prefix(self.name)

    def needs_boxes(self, dataset: str | None) -> None:
        """Refuse a detector where neither a flag nor a file names its pictures: no set is taken unasked.

        Raises:
            UserError: exit 2.
        """
        if dataset in (None, "auto") and (self.core or is_detector(self.name)):
            raise UserError(f"{self.name} is a detector, and needs pictures with boxes", BOXES_HINT)


@dataclass(frozen=True, kw_only=True)
class Network(Architecture):
    """The network, and its weights if they do not come from a checkpoint."""

    weights: Path | None = flag(
        "--weights", type=path, metavar="F",
        help="a state_dict of your own (torch.save, or safetensors) in place of a checkpoint; --arch names its network",
    )  # fmt: skip

    def file(self, given: Path | bool | None, default: Path, maker: str, others: Sequence[Path] = ()) -> Path:
        """Return the file that a command starts from: that of --weights, else as naming.input_file."""
        return input_file(self.weights or given, default, maker, others)

    def only_weights(self, word: str, given: object) -> None:
        """Refuse another input file besides --weights.

        Args:
            word: the other file's flag or name.
            given: its value, falsy if it was not given.
        """
        if self.weights and given:
            raise UserError(f"--weights contradicts {word}: a command starts from one file", "give one of them")

    def refuse_widths(self, why: str) -> None:
        """Refuse --cfg if the input file gives the widths; with --weights it does not."""
        if self.cfg and not self.weights:
            raise UserError(f"--cfg{why}", "leave --cfg out")
