"""The groups of flags for what a command prints and for the machine that it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from engine.cli.argtypes import number
from engine.cli.flags import Options, flag
from engine.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Printing(Options):
    """What to print."""

    json: bool = flag("--json", action="store_true", help="print one JSON object instead of text")
    debug: bool = flag("--debug", action="store_true", help="show the traceback of a fault")


@dataclass(frozen=True, kw_only=True)
class Debugging(Options):
    """Printing for commands whose result is text alone."""

    json = False
    debug: bool = flag("--debug", action="store_true", help="show the traceback of a fault")


@dataclass(frozen=True, kw_only=True)
class Threads(Options):
    """The number of CPU threads."""

    threads: int | None = flag(
        "--threads", type=number(int, 1, 1024), metavar="N", help="CPU threads (default: OMP_NUM_THREADS, else all)"
    )


@dataclass(frozen=True, kw_only=True)
class Device(Threads):
    """The device to run on."""

    title = "machine"
    device: str = flag("--device", choices=["auto", "cpu", "cuda"], default="auto")
    cpu: bool = flag("--cpu", action="store_true", help="same as --device cpu")

    def __post_init__(self) -> None:
        if self.cpu and self.device == "cuda":
            raise UserError("--cpu contradicts --device cuda", "give one of them")
        if self.cpu:
            object.__setattr__(self, "device", "cpu")


@dataclass(frozen=True, kw_only=True)
class OnDevice(Printing, Device):
    """The device and what to print."""

    title = "machine"


@dataclass(frozen=True, kw_only=True)
class Machine(OnDevice):
    """The device, the random seed and what to print."""

    seed: int = flag("--seed", type=number(int, 0, 2**63 - 1), default=1, metavar="N")
    quiet: bool = flag("--quiet", action="store_true", help="no progress and no warnings of torch on stderr")


@dataclass(frozen=True, kw_only=True)
class OnCpu(Printing, Threads):
    """The machine of a command that runs on the CPU alone."""

    title = "machine"
