"""python -m scripts.histograms: draw the batch norm scales of files, or what a layer reads with the ranges of calibration."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag
from engine.cli.naming import refuse_input
from engine.cli.options import Works
from engine.errors import UserError

EXAMPLES = (
    "scripts.histograms models_save/nin.pth models_save/nin_preprune.pth",
    "scripts.histograms models_save/nin.pth --layer block2.conv",
)


@dataclass(frozen=True, kw_only=True)
class Options(Works):
    """The options of scripts.histograms: the files, and the layer."""

    files: list[Path] = flag("files", type=argtypes.path, nargs="*", metavar="F", help="float, sparse or pruned files")
    layer: str | None = flag(
        "--layer", metavar="NAME", help="draw what this layer reads, of one file (default: draw the batch norm scales)"
    )
    pictures: int = flag(
        "--calibration_pictures", type=argtypes.number(int, 1), default=512, metavar="N",
        help="training pictures to look at with --layer (default: 512)",
    )  # fmt: skip
    save: Path = flag(
        "--save", type=argtypes.written(".png"), default=Path("runs/histograms.png"), metavar="F.png",
        help="the plot to write (default: runs/histograms.png)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.network.only_weights("a file", self.files)
        if not self.sources:
            raise UserError("the following arguments are required: F", "name one or more float checkpoints")
        if self.layer and len(self.files) > 1:
            raise UserError("--layer is for one file", "name one")
        refuse_input(self.save, self.sources)
        self.network.refuse_widths(": a file has its own")

    @property
    def sources(self) -> list[Path]:
        """Every file that is read."""
        return [self.network.weights] if self.network.weights else self.files


def parser() -> Parser:
    return Parser("scripts.histograms", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.system import figures
    from engine.system.files import OTHER_SAVE, check_writable, write_bytes
    from engine.training.foreign import description
    from models import files

    figures.check()  # before files are opened
    check_writable(options.save, OTHER_SAVE)
    said = description(options, judges=options.layer is not None)
    opened = [files.open(path, options.network.arch, said) for path in options.sources]
    text, picture = _inputs(options, opened[0]) if options.layer else _scales(opened)
    write_bytes(options.save, picture, remedy=OTHER_SAVE)
    return {"text": text, "path": options.save}


def _scales(opened: Sequence[Any]) -> tuple[str, bytes]:
    import torch

    from prune.sparsity import gammas
    from scripts.drawing import histograms
    from scripts.drawing.histograms import Scales

    found = [Scales(f"{one.path}, {_penalty(one)}", torch.cat(gammas(one.network)).abs()) for one in opened]
    lines = [f"{one.label}: {len(one.sizes):,} scales, half of them below {one.sizes.median():.3g}" for one in found]
    return "\n".join(lines), histograms.of_scales(found)


def _penalty(opened: Any) -> str:
    """Say how the scales of a file were trained."""
    strengths = [stage.s for stage in opened.checkpoint.history if getattr(stage, "s", None)]
    return f"--s {strengths[-1]:g}" if strengths else "no penalty"


def _inputs(options: Options, opened: Any) -> tuple[str, bytes]:
    from engine.system import device
    from engine.training.choose_data import open_data
    from quant.placement import may_be_negative, meet, quantizable
    from quant.prepare import prepare
    from quant.spec import affine_spec
    from scripts.drawing import histograms

    data = open_data(options, device.choose(options.machine.device), opened.checkpoint)
    model, name = opened.at(data.info.image_size).network, options.layer or ""
    layers = [*quantizable(model)]
    if name not in layers:
        hint = argtypes.nearest(name, layers) or f"one of {', '.join(layers)}"
        raise UserError(f"{opened.path} has no convolution or linear layer {name!r}", hint)
    quantized = prepare(model, meet(affine_spec(8, 8, 1, True), model)).to(device.choose(options.machine.device))
    found = histograms.inputs(quantized, name, data.train, options.pictures, options.machine.seed)
    lines = [
        f"{bits} bit {method}: {low:.4g} to {high:.4g}"
        for bits in histograms.WIDTHS
        for method, (low, high) in histograms.ranges(found, bits).items()
    ]
    if name in may_be_negative(model):
        lines.append("no ReLU before this layer: with --calibrate kl, quant.ptq uses mse for its input")
    pictures = min(options.pictures, len(data.train))
    title = f"inputs of {name}, {opened.path}, {pictures} pictures of {data.info.label}"
    return "\n".join(lines), histograms.of_inputs(found, title)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
