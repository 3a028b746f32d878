"""The flags of both commands, and the default files of --W."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.cli import argtypes
from engine.cli.flags import Options, flag, part
from engine.cli.naming import SAVED
from engine.cli.options import Works, Writes
from engine.errors import BAD_CHECKPOINT, UserError
from quant.quantizer_spec import quantizer
from quant.settings import VALUES
from quant.spec import QuantSpec


@dataclass(frozen=True, kw_only=True)
class Weights(Options):
    """The flag --W."""

    bits: int | None = flag(
        "--W", type=argtypes.number(int, 0), choices=sorted(VALUES),
        help="2 binary, 3 ternary, 32 float weights: checked against the file",
    )  # fmt: skip

    def stem(self, prefix: str) -> str:
        """Return the unmerged file's name without folder and suffix. --W 2 is the default, as in quant.wbwtab."""
        return f"{prefix}_{QuantSpec(quantizer(VALUES[self.bits or 2]), quantizer('b')).name}"

    def others(self, prefix: str) -> list[Path]:
        """Return the network's files that can be merged, in the default file's folder; only those of --W if given."""
        quantized = (
            rf"w{VALUES[self.bits]}a[0-9a-z]+(?:_ends)?" if self.bits else "(?:w[0-9a-z]+a|int|lsq_|ptq_).*(?<!_merged)"
        )
        name = re.compile(rf"{re.escape(prefix)}_{quantized}")
        return sorted(path for path in SAVED.glob("*.pth") if name.fullmatch(path.stem))

    def check(self, path: Path, letter: str) -> None:
        """Refuse a file whose weights are not of --W.

        Args:
            letter: the width of the file's weights, as QuantSpec writes it.

        Raises:
            UserError: exit 3.
        """
        if self.bits and letter != str(VALUES[self.bits]):
            kind = f"{letter}-bit" if letter.isdigit() else f"of kind {letter}"
            raise UserError(f"--W {self.bits}, but the weights of {path} are {kind}", "leave --W out", BAD_CHECKPOINT)


@dataclass(frozen=True, kw_only=True)
class Merging(Writes):
    """The file to merge."""

    model: Path | None = flag(
        "--model", type=argtypes.path, metavar="F", help="the file to merge (default: models_save/ARCH_wWab.pth by --W)"
    )
    weights: Weights = part(Weights)

    def __post_init__(self) -> None:
        self.network.only_weights("--model", self.model)
        self.network.refuse_widths(": a merged network has the widths of its file")


@dataclass(frozen=True, kw_only=True)
class Comparing(Works):
    """The files to compare, and the number type."""

    files: list[Path] = flag(
        "files", type=argtypes.path, nargs="*", metavar="F",
        help="the merged file (default: models_save/ARCH_wWab_merged.pth by --W), or both files, unmerged first",
    )  # fmt: skip
    float64: bool = flag(
        "--float64", action="store_true",
        help="compute in float64, and also compare a fresh fold that is not rounded to a file's fp32",
    )  # fmt: skip
    weights: Weights = part(Weights)

    def __post_init__(self) -> None:
        if len(self.files) > 2:
            raise UserError("more than two files", "name the merged file, or the unmerged and the merged file")
        self.network.only_weights("the unmerged file", len(self.files) == 2)
        if self.network.cfg:
            raise UserError("--cfg: the files have their own", "leave --cfg out")
