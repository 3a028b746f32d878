"""The flags that every command of this folder has which trains, besides its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.cli import argtypes
from engine.cli.flags import flag
from engine.cli.naming import SAVED, command_hint, find
from engine.cli.options import Trains, recipe_help
from engine.errors import UserError
from quant.recipes import for_spec
from quant.spec import QuantSpec

SAYS: dict[str, Callable[[QuantSpec], Any]] = {
    **dict.fromkeys(("--Wbits", "--W"), lambda spec: spec.weight.letter),
    **dict.fromkeys(("--Abits", "--A"), lambda spec: spec.activation.letter),
    **dict.fromkeys(("--per_channel", "--no-per_channel"), lambda spec: spec.weight.per_channel),
    **dict.fromkeys(("--scale", "--no-scale"), lambda spec: spec.weight.scale),
    "--quantizer": lambda spec: spec.weight.kind, "--q_type": lambda spec: spec.weight.symmetric,
    "--bn_fold": lambda spec: spec.bn_fold, "--order": lambda spec: spec.order, "--gap": lambda spec: spec.weight.gap,
    "--ste": lambda spec: spec.activation.ste, "--wste": lambda spec: spec.weight.ste,
    "--bn_momentum": lambda spec: spec.bn_momentum,
}  # fmt: skip


"""What each flag says of a spec: not needed where a file is only judged, and refused where the file is something else."""


def helped(**specs: QuantSpec) -> dict[str, dict[str, str]]:
    """The help of the training flags.

    Args:
        specs: a spec of each family that the command has, by the name that --help gives it.
    """
    return recipe_help(**{family: partial(for_spec, spec) for family, spec in specs.items()})


@dataclass(frozen=True, kw_only=True)
class Quantizing(Trains):
    """What it starts from."""

    refine: Path | bool | None = flag(
        "--refine", nargs="?", const=True, type=argtypes.path, metavar="F",
        help="start from a float, sparse or pruned file (default: the refined file of --arch)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refine is not None and self.network.cfg:
            raise UserError("--cfg contradicts --refine: the file has its own", "leave --cfg out")

    def source(self) -> Path | None:
        """The float file to start from, if any.

        Raises:
            UserError: exit 3 if it is not there.
        """
        if self.refine is None:
            return None
        maker = command_hint("prune.train --refine", self.network.arch)
        return find(self.refine, SAVED / f"{self.network.prefix}_refine.pth", maker)
