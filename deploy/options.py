"""Which network a command deploys: a checkpoint, packed in memory, or a packed file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import argtypes
from engine.cli.flags import Options, flag, part
from engine.cli.naming import input_file, saved
from engine.cli.options import Normalisation, Output
from engine.errors import UserError

if TYPE_CHECKING:
    from deploy.packed import Packed
    from models.files import Opened


SUFFIXES = {".pth", ".pt", ".safetensors", ".onnx"}
"""Of files that hold networks: each says which kind it is."""


@dataclass(frozen=True, kw_only=True)
class Source(Options):
    """The flags that say which file, and how its ends are stored."""

    given: Path | None = flag(
        "--model", type=argtypes.path, metavar="F",
        help="a file of any stage, merged or not (default: models_save/nin_wbab_merged.pth)",
    )  # fmt: skip
    ends: str = flag(
        "--ends", choices=["int8", "float"], default="int8",
        help="first and last layer of a network whose other layers are integer: 8 bit, or as they are (default: int8); "
        "those of detectors stay as they are",
    )  # fmt: skip
    arch: str | None = flag(
        "--arch", type=argtypes.arch, metavar="NAME", help="the network of your own code that the file holds"
    )
    pixels: Normalisation = part(Normalisation)

    @property
    def model(self) -> Path:
        """The file.

        Raises:
            UserError: exit 3 where it is missing.
        """
        return input_file(self.given, saved("nin", "_wbab_merged"), "bn_merge --W 2")

    def packed(self, words: Sequence[str]) -> Packed:
        """The packed form of the file's network: that of a packed file as it is, of a checkpoint made here.

        Args:
            words: the command line, for the provenance.

        Raises:
            UserError: exit 3 for a file that is neither, exit 2 for a network that is no program.
        """
        from deploy import packed

        if self.model.suffix == packed.SUFFIX:
            asked = {"--ends float": self.ends != "int8", "--arch": self.arch, "--mean": self.pixels.mean,
                     "--std": self.pixels.std}  # fmt: skip
            if given := next((name for name, value in asked.items() if value), None):
                raise UserError(f"{given}: {self.model} is packed already", "give it with the checkpoint")
            return packed.open(self.model)
        from quant import restore

        return self.packed_of(restore.open(self.model, self.arch), words)

    def packed_of(self, opened: Opened, words: Sequence[str]) -> Packed:
        """The packed form of an opened checkpoint's network; as `packed`."""
        from deploy import making

        return making.packed_of(opened, self.pixels.mean, self.pixels.std, self.ends == "int8", words)

    def target(self, output: Output, suffix: str) -> Path:
        """The file to write, which is no input: that of --save, else one beside --model.

        Raises:
            UserError: exit 2 where it is the input, exit 6 where it cannot be written.
        """
        from engine.system.files import check_writable

        path = output.save or self.model.with_suffix(suffix)
        if path.resolve() == self.model.resolve():
            raise UserError(f"{path} is both input and output", "name another --save")
        if path.suffix in SUFFIXES - {suffix}:
            raise UserError(f"--save {path}: such files end in {suffix}", f"name it {path.with_suffix(suffix)}")
        check_writable(path)
        return path
