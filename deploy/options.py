"""The options of commands that deploy a network: a checkpoint, packed in memory, or a packed file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import argtypes
from engine.cli.flags import Options, flag, part
from engine.cli.naming import input_file, refuse_input, saved
from engine.cli.options import Normalisation, Output
from engine.errors import UserError

if TYPE_CHECKING:
    from deploy.packed import Packed
    from models.files import Opened


SUFFIXES = {".pth", ".pt", ".safetensors", ".onnx"}
"""Of files that hold networks; each stands for one kind of file."""


@dataclass(frozen=True, kw_only=True)
class Source(Options):
    """The flags that name the file and say how its first and last layers are stored."""

    given: Path | None = flag(
        "--model", type=argtypes.path, metavar="F",
        help="checkpoint of any stage, merged or not (default: models_save/nin_wbab_merged.pth)",
    )  # fmt: skip
    ends: str = flag(
        "--ends", choices=["int8", "float"], default="int8",
        help="how to store the first and last layers where the other layers are integer: in 8 bits, or unchanged "
        "(default: int8); in detectors they stay unchanged",
    )  # fmt: skip
    arch: str | None = flag(
        "--arch", type=argtypes.arch, metavar="NAME", help="your own network, if the file holds one"
    )
    pixels: Normalisation = part(Normalisation)

    @property
    def model(self) -> Path:
        """The path of the file.

        Raises:
            UserError: exit 3 if the file is missing.
        """
        return input_file(self.given, saved("nin", "_wbab_merged"), "bn_merge --W 2")

    def packed(self, words: Sequence[str]) -> Packed:
        """Read a packed file, or pack a checkpoint's network in memory and say which layers are rounded.

        Args:
            words: the command line, for the provenance.

        Raises:
            UserError: exit 3 for any other file, exit 2 for a network that cannot be a program.
        """
        from deploy import file, packed

        if file.looks_packed(self.model):
            asked = {"--ends float": self.ends != "int8", "--arch": self.arch, "--mean": self.pixels.mean,
                     "--std": self.pixels.std}  # fmt: skip
            if given := next((name for name, value in asked.items() if value), None):
                raise UserError(f"{given}: {self.model} is already packed", "give this flag with the checkpoint")
            return packed.open(self.model)
        from deploy.packing import say_rounded
        from quant import restore

        held = self.packed_of(restore.open(self.model, self.arch), words)
        say_rounded(held)
        return held

    def packed_of(self, opened: Opened, words: Sequence[str]) -> Packed:
        """Pack an opened checkpoint's network; see `packed`."""
        from deploy import packing

        return packing.packed_of(opened, self.pixels.mean, self.pixels.std, self.ends == "int8", words)

    def target(self, output: Output, suffix: str) -> Path:
        """Return the path of the file to write: --save, else the path of --model with another suffix.

        Raises:
            UserError: exit 2 if it is the input or has another suffix, exit 6 if it cannot be written.
        """
        from engine.system.files import OTHER_SAVE, check_writable

        path = output.save or self.model.with_suffix(suffix)
        refuse_input(path, [self.model])
        if path.suffix != suffix:
            named = path.with_suffix(suffix) if path.suffix in SUFFIXES else path.with_name(path.name + suffix)
            raise UserError(f"--save {path}: the file must end in {suffix}", f"give --save {named}")
        check_writable(path, OTHER_SAVE)
        return path
