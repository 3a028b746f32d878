"""The flags that say which network, and the file that it starts from. The other groups of flags: options.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.cli.archs import ARCHS, prefix
from engine.cli.argtypes import arch, number, path, widths
from engine.cli.flags import Options, flag
from engine.cli.naming import input_file
from engine.errors import UserError

SHORT = ("nin", "nin_gc", "separable")
"""The networks of --type 0, 1 and 2."""


@dataclass(frozen=True, kw_only=True)
class Architecture(Options):
    """Which network; `default_arch` is the command's own."""

    title = "network"
    arch: str | None = flag(
        "--arch", type=arch, metavar="NAME",
        help=f"{', '.join(ARCHS)}, torchvision:NAME, timm:NAME, or package.module:function or file.py:function for your "
        "own (default: the input file's, else the command's own)",
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
        help="of a detector of your own the modules that are trained, as it calls them: backbone,head",
    )  # fmt: skip
    default_arch: str = "nin"

    def __post_init__(self) -> None:
        if self.type is None:
            return
        meant = SHORT[self.type]
        if self.arch not in (None, meant):
            raise UserError(f"--type {self.type} means {meant}, --arch says {self.arch}", "give one of them")
        object.__setattr__(self, "arch", meant)

    @property
    def name(self) -> str:
        """The network, where no file says it."""
        return self.arch or self.default_arch

    @property
    def prefix(self) -> str:
        """What default file names begin with, where no file says it."""
        return prefix(self.name)


@dataclass(frozen=True, kw_only=True)
class Network(Architecture):
    """Which network, and the weights that it has where no checkpoint gives them."""

    weights: Path | None = flag(
        "--weights", type=path, metavar="F",
        help="a state_dict of your own (torch.save, or safetensors) in place of a checkpoint; --arch names its network",
    )  # fmt: skip

    def file(self, given: Path | bool | None, default: Path, maker: str, others: Sequence[Path] = ()) -> Path:
        """The file that a command starts from: that of --weights, else as naming.input_file."""
        return input_file(self.weights or given, default, maker, others)

    def only_weights(self, word: str, given: object) -> None:
        """Refuse a file beside --weights.

        Args:
            word: the flag that names a file, or what it is called.
            given: its value; nothing that is true where it was not given.
        """
        if self.weights and given:
            raise UserError(f"--weights contradicts {word}: each is what the command starts from", "give one of them")

    def refuse_widths(self, why: str) -> None:
        """Refuse --cfg where a file says the widths; a state_dict does not."""
        if self.cfg and not self.weights:
            raise UserError(f"--cfg{why}", "leave --cfg out")
