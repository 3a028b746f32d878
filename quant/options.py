"""The flags that the commands of this folder share. Flags of quantizers are declared with spec fields: settings.py."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from engine.cli import argtypes
from engine.cli.flags import Options, flag
from engine.cli.naming import command_hint, saved
from engine.cli.network import Network
from engine.cli.options import Trains
from quant import settings
from quant.settings import Flag
from quant.spec import QuantSpec


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """A command's flags of quantizers and their values; None for flags that were not given."""

    flags: ClassVar[tuple[Flag, ...]] = ()
    values: Mapping[str, Any]

    @classmethod
    def add(cls, parser: argparse.ArgumentParser, changes: Mapping[str, Any] | None = None) -> None:
        settings.add(parser.add_argument_group("quantization"), cls.flags, **(changes or {}))

    @classmethod
    def read(cls, found: argparse.Namespace) -> Settings:
        return cls(values={flag.name: getattr(found, flag.name) for flag in cls.flags})

    def flat(self) -> dict[str, Any]:
        return dict(self.values)

    @property
    def keep_float(self) -> list[str]:
        """Names or patterns of layers that stay float."""
        return self.values["keep_float"] or []

    def contradiction(self, words: tuple[str, ...], was: QuantSpec, asked: QuantSpec) -> str | None:
        """Return the first typed flag that contradicts a file, None if there is none.

        Args:
            words: the typed command line.
            was: the file's spec.
            asked: the spec of the flags.
        """
        typed = {word.partition("=")[0] for word in words}
        wrong = (flag.word for flag in self.flags if typed & {*flag.words} and flag.of(was) != flag.of(asked))
        return next(wrong, None)


@dataclass(frozen=True, kw_only=True)
class Quantizing(Trains):
    """The options of quantized training: the file to start from and the flags of quantizers."""

    settings: Any
    refine: Path | bool | None = flag(
        "--refine", nargs="?", const=True, type=argtypes.path, metavar="F",
        help="start from a float, sparse or pruned file (default: the refined file of --arch)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network.only_weights("--refine", self.refine)
        if self.refine is not None:
            self.network.refuse_widths(" contradicts --refine: the file has its own")

    def source(self) -> Path | None:
        """Return the float file to start from, None for fresh weights.

        Raises:
            UserError: exit 3 if the file does not exist.
        """
        if self.refine is None and self.network.weights is None:
            return None
        return refined_file(self.refine, self.network)


def refined_file(given: Path | bool | None, network: Network) -> Path:
    """Return the float file to quantize: that of --weights, the one given, or else the refined file of --arch.

    Raises:
        UserError: exit 3 if the file does not exist.
    """
    maker = command_hint("prune.train --refine", network.arch)
    return network.file(given, saved(network.prefix, "_refine"), maker)
