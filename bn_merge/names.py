"""The flags of bn_merge.compare, and what both commands take where no file is named: --W, and the names that go by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.cli import argtypes
from engine.cli.flags import Options, flag, part
from engine.cli.options import Works
from engine.errors import BAD_CHECKPOINT, UserError

LETTER = {2: "b", 3: "t", 32: "32"}
"""How file names write the weights of --W."""


@dataclass(frozen=True, kw_only=True)
class Weights(Options):
    """The flag --W."""

    bits: int | None = flag(
        "--W", type=argtypes.number(int, 0), choices=sorted(LETTER),
        help="2 binary, 3 ternary, 32 float weights: checked against the file",
    )  # fmt: skip

    def stem(self, prefix: str) -> str:
        """The name of the unmerged file, without folder and ending; --W 2 is the default, as in quant.wbwtab."""
        return f"{prefix}_w{LETTER[self.bits or 2]}ab"

    def check(self, path: Path, letter: str) -> None:
        """Refuse, with exit 3, a file whose weights (`letter` as QuantSpec writes them) are not of --W."""
        if self.bits and letter != LETTER[self.bits]:
            raise UserError(
                f"--W {self.bits}, but the weights of {path} are of kind {letter}", "leave --W out", BAD_CHECKPOINT
            )


@dataclass(frozen=True, kw_only=True)
class Comparing(Works):
    """Which files, and in which arithmetic."""

    files: list[Path] = flag(
        "files", type=argtypes.path, nargs="*", metavar="F",
        help="the merged file (default: models_save/ARCH_wWab_merged.pth by --W), or both, unmerged first",
    )  # fmt: skip
    float64: bool = flag(
        "--float64", action="store_true",
        help="compute in float64; also with a fresh fold, which is not rounded to a file's fp32",
    )  # fmt: skip
    weights: Weights = part(Weights)

    def __post_init__(self) -> None:
        if len(self.files) > 2:
            raise UserError("more than two files", "name the merged file, or the unmerged and the merged one")
        if self.network.cfg:
            raise UserError("--cfg: the files have their own", "leave --cfg out")
