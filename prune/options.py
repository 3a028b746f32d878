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
    """An argparse type: the share of channels to drop, in [0, 1)."""
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
    """How much goes, and where from."""

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
        help="what a channel is worth: its BN scales, or the mean |weight| of its rows (default: bn)",
    )  # fmt: skip
    max_per_layer: float | None = flag(
        "--max_per_layer", type=argtypes.number(float, 0, 1, open_low=True), metavar="P",
        help="the largest share of its channels that one layer may lose; what this keeps is not dropped elsewhere "
        "(default: no limit)",
    )  # fmt: skip
    spare: list[str] = flag(
        "--spare", action="append", default=[], metavar="PATTERN",
        help="a layer that keeps all channels, by its name or a pattern like layer1.*; may be given several times",
    )  # fmt: skip
    strict: bool = flag(
        "--strict", action="store_true", help="refuse, instead of warning, where a layer would be emptied"
    )
    bn_batches: int = flag(
        "--bn_batches", type=argtypes.number(int, 1), default=50, metavar="N",
        help="training batches to re-estimate BN statistics over (default: 50)",
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
