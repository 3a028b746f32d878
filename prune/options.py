"""The flags of both pruning commands; their defaults differ."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.cli import argtypes
from engine.cli.flags import flag, part
from engine.cli.network import Network
from engine.cli.options import Writes


def share(text: str) -> float:
    """Parse the share of channels to drop, in [0, 1), for argparse."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        guess = f"did you mean {value / 100:g}?" if 1 < value < 100 else "e.g. --percent 0.5"
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1)\n{guess}")
    return value


PERCENT: dict[str, Any] = {
    "type": share,
    "metavar": "P",
    "help": "share of channels to drop, over all layers together (default: %(default)s)",
}


Importance = Literal["bn", "l1"]


@dataclass(frozen=True, kw_only=True)
class Options(Writes):
    """How much to prune, from which file, and by which scores."""

    percent: float = flag("--percent", default=0.5, **PERCENT)
    base: int = flag(
        "--normal_regular", type=argtypes.number(int, 1), default=1, metavar="N",
        help="keep a multiple of N channels in every layer (default: 1)",
    )  # fmt: skip
    model: Path | None = flag(
        "--model", type=argtypes.path, metavar="F",
        help="sparsely trained file (default: models_save/ARCH_preprune.pth)",
    )  # fmt: skip
    importance: Importance = flag(
        "--importance", choices=["bn", "l1"], default="bn",
        help="score of a channel: its BN scales, or the mean |weight| of its rows (default: bn)",
    )  # fmt: skip
    max_per_layer: float | None = flag(
        "--max_per_layer", type=argtypes.number(float, 0, 1, open_low=True), metavar="P",
        help="largest share of its channels that a layer may lose; other layers do not lose more instead "
        "(default: no limit)",
    )  # fmt: skip
    spare: list[str] = flag(
        "--spare", action="append", default=[], metavar="PATTERN",
        help="keep all channels of this layer, a name or a pattern like layer1.*; may be given several times",
    )  # fmt: skip
    strict: bool = flag(
        "--strict", action="store_true", help="stop with an error, not a warning, if a layer would be emptied"
    )
    bn_batches: int = flag(
        "--bn_batches", type=argtypes.number(int, 1), default=50, metavar="N",
        help="number of training batches for re-estimating BN statistics (default: 50)",
    )  # fmt: skip
    batch_size: int = flag("--train_batch_size", type=argtypes.number(int, 2), default=128, metavar="N")

    def __post_init__(self) -> None:
        self.network.only_weights("--model", self.model)
        self.network.refuse_widths(": a pruned network's widths come from --percent")


@dataclass(frozen=True, kw_only=True)
class Grouped(Options):
    """The defaults of prune.gc."""

    percent: float = flag("--percent", default=0.4, **PERCENT)
    network: Network = part(Network, default_arch="nin_gc")
