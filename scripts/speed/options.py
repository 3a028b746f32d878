"""The flags of scripts.benchmark: what to measure, and how long."""

from __future__ import annotations

from dataclasses import dataclass

from engine.cli import argtypes
from engine.cli.flags import flag, part
from engine.cli.machine import OnDevice
from engine.cli.options import Command

NETWORKS = ("nin", "torchvision:resnet18")
VARIANTS = ("float", "DoReFa W8A8", "LSQ W4A4", "ternary", "binary", "INT8 folded")
WHAT = ("training", "evaluation")


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The options of the speed benchmark: the variants, and the duration."""

    networks: list[str] = flag(
        "--networks",
        type=argtypes.arch,
        nargs="+",
        default=list(NETWORKS),
        metavar="ARCH",
        help=f"networks to measure (default: {' '.join(NETWORKS)})",
    )
    variants: list[str] = flag("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME",
                               help=f"some of {', '.join(VARIANTS)} (default: all)")  # fmt: skip
    what: list[str] = flag("--what", nargs="+", choices=WHAT, default=list(WHAT), metavar="WHAT",
                           help=f"some of {', '.join(WHAT)} (default: both)")  # fmt: skip
    batch: int = flag("--batch", type=argtypes.number(int, 2, 100_000), default=50, metavar="N",
                      help="pictures of a training batch (default: 50)")  # fmt: skip
    pictures: int = flag("--pictures", type=argtypes.number(int, 10, 1_000_000), default=2000, metavar="N",
                         help="pictures of an evaluation (default: 2000)")  # fmt: skip
    image_size: int = flag(
        "--image_size", type=argtypes.number(int, 8, 1024), default=32, metavar="N",
        help="side of the pictures (default: 32)",
    )  # fmt: skip
    seconds: float = flag("--seconds", type=argtypes.number(float, 0), default=30, metavar="S",
                          help="least time for each table; each row gets five turns or more (default: 30)")  # fmt: skip
    growth: bool = flag(
        "--growth", action="store_true", help="also measure how cost grows with batch, width, pruned share and size"
    )
    machine: OnDevice = part(OnDevice)
