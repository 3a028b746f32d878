"""python -m quant.ptq: quantize a float file without training, with ranges calibrated on a few hundred pictures."""

from __future__ import annotations

import shlex
import sys
from argparse import BooleanOptionalAction
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.checkpoint.words import counted
from engine.cli import argtypes, command
from engine.cli.archs import is_users_code
from engine.cli.flags import Parser, flag, part
from engine.cli.naming import called, repeated, saved
from engine.cli.options import Writes
from engine.system.messages import warning
from quant import settings
from quant.options import Settings, refined_file
from quant.quantizer_spec import QuantizerSpec
from quant.spec import QuantSpec

EXAMPLES = (
    "quant.ptq --calibrate kl",
    "quant.ptq --model models_save/nin_refine.pth --calibrate mse --Wbits 4 --Abits 8 --q_type 0 --bias_correction",
)

LOST = 10
"""Loss of accuracy in points above which training at these bits is recommended."""


@dataclass(frozen=True, kw_only=True)
class Grid(Settings):
    """The grid of the codes."""

    flags = tuple(settings.flags_of("ptq", QuantizerSpec, QuantSpec))

    @property
    def q_type(self) -> int:
        """0 symmetric, 1 asymmetric."""
        return self.values["q_type"]

    @property
    def per_channel(self) -> bool:
        """Whether each filter has its own weight grid."""
        return self.values["per_channel"]

    @property
    def ends(self) -> str:
        """The first layers: "int8" reads the picture's bytes, "float" its normalised numbers."""
        return self.values["ends"]

    @property
    def sums(self) -> str:
        """The inputs of sums and concatenations: "int8" or "float"."""
        return self.values["sums"]


@dataclass(frozen=True, kw_only=True)
class Options(Writes):
    """The file to quantize, the grid, and the calibration of ranges."""

    ranks = True
    model: Path | None = flag(
        "--model", type=argtypes.path, metavar="F",
        help="float, sparse or pruned file to quantize (default: models_save/ARCH_refine.pth)",
    )  # fmt: skip
    calibrate: str = flag(
        "--calibrate", choices=["minmax", "percentile", "mse", "kl"], default="mse",
        help="how to choose the clipping range of activations (default: mse)",
    )  # fmt: skip
    pictures: int = flag(
        "--calibration_pictures", type=argtypes.number(int, 1), default=512, metavar="N",
        help="number of training pictures to calibrate on (default: 512)",
    )  # fmt: skip
    w_bits: int = flag(
        "--Wbits", type=argtypes.number(int, 2, 8), default=8, metavar="K", help="bits of weights, 2 to 8 (default: 8)"
    )
    a_bits: int = flag(
        "--Abits",
        type=argtypes.number(int, 2, 8),
        default=8,
        metavar="K",
        help="bits of activations, 2 to 8 (default: 8)",
    )
    bias_correction: bool = flag(
        "--bias_correction", action=BooleanOptionalAction, default=False,
        help="subtract each channel's mean error from its bias; worth trying with 4-bit weights (default: no)",
    )  # fmt: skip
    settings: Grid = part(
        Grid, q_type={"default": 1}, per_channel={"default": True}, sums={"default": "float"}, ends={"default": "float"}
    )

    def __post_init__(self) -> None:
        self.network.only_weights("--model", self.model)
        self.network.refuse_widths(": the file has its own")

    @property
    def suffix(self) -> str:
        """The suffix of the default output file's name, with all settings that are not the default."""
        bits = "" if (self.w_bits, self.a_bits) == (8, 8) else f"_w{self.w_bits}a{self.a_bits}"
        q_type, per_channel = self.settings.q_type, self.settings.per_channel
        grid = f"{'' if q_type == 1 else '_q0'}{'' if per_channel else '_tensor'}"
        grid += ("_sums" if self.settings.sums == "int8" else "") + ("_ends" if self.settings.ends == "int8" else "")
        return f"_ptq_{self.calibrate}{bits}{grid}{'_bc' if self.bias_correction else ''}"


def parser() -> Parser:
    return Parser("quant.ptq", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.checkpoint.history import Calibrate
    from engine.errors import prefix_path
    from engine.tasks.of import task_of
    from engine.training.experiment import Experiment
    from engine.training.foreign import description
    from engine.training.judging import in_keys, in_words
    from models import files
    from quant import notices, restore
    from quant.bias_correction import correct_biases
    from quant.calibrate import calibrate
    from quant.placement import may_be_negative, meet
    from quant.prepare import prepare
    from quant.spec import affine_spec
    from quant.sums import negative_sums

    source = refined_file(options.model, options.network)
    opened = files.open(source, options.network.arch, description(options))
    parent = opened.checkpoint
    run = Experiment(options, saved(parent.prefix, options.suffix), source, parent)
    data = run.data()
    model = opened.at(data.info.image_size).network
    run.task = task_of(model, data.info, parent.arch)
    grid = options.settings
    # bn_fold: batch norms are folded at each use. bn_momentum has no effect: no command trains a quantized file
    spec = replace(affine_spec(options.w_bits, options.a_bits, grid.q_type, True, grid.per_channel), ends=grid.ends)
    spec = meet(spec, model, grid.keep_float, data.info.mean, data.info.std)
    spec = replace(spec, by_graph=is_users_code(parent.arch), sums=grid.sums)
    quantized = prepare(model, spec).to(run.device)
    notices.say(model, quantized, spec)
    before = run.evaluate(model, data, "before")
    with prefix_path(source):
        seed = options.machine.seed
        negative = [*may_be_negative(model), *negative_sums(model)]
        calibrate(quantized, data.train, options.calibrate, options.pictures, seed, negative=negative)
        if options.bias_correction:
            notices.say_uncorrected(correct_biases(quantized, data.train, options.pictures, seed))
    after = run.evaluate(quantized, data, "after")
    _warn_of_loss(options, parent.arch, source, before.score - after.score)
    looked_at = min(options.pictures, len(data.train))
    stage = Calibrate(
        spec=spec.to_dict(), method=options.calibrate, pictures=looked_at, bias_correction=options.bias_correction
    )
    metrics = run.metrics(after, data, before=before.score)
    path = run.write(quantized, parent.arch, parent.arch_args, data, metrics, stage)
    text = (
        f"{restore.in_words(stage)}: {in_words(run.task, after.score, data, before.score, after.more)}, "
        f"calibrated on {counted(looked_at, 'picture')}, without training"
    )
    return {"text": text, "path": path, **in_keys(run.task, after.score, before.score, after.more)}


def _warn_of_loss(options: Options, arch: str, source: Path, lost: float) -> None:
    """Warn of a loss above LOST points, with the command that trains at the same bits on the same data."""
    if lost <= LOST:
        return
    ways = ["try --calibrate mse"] * (options.calibrate != "mse")
    ways += ["take quant.wqaq --quantizer lsq below 5 bits"] * (min(options.w_bits, options.a_bits) < 5)
    other = f"{', '.join(ways)}, or " if ways else ""
    data, settings = options.data, options.settings
    bits = ["--Wbits", str(options.w_bits), "--Abits", str(options.a_bits), "--q_type", str(settings.q_type)]
    same = repeated(
        arch, data.root, dataset=data.dataset, image_size=data.image_size, crop=data.crop, mean=data.mean, std=data.std,
        val=data.val or None,
    )  # fmt: skip
    grids = [] if settings.per_channel else ["--no-per_channel"]
    grids += ["--sums", "int8"] if settings.sums == "int8" else []
    grids += ["--ends", "int8"] if settings.ends == "int8" else []
    kept = [word for name in settings.keep_float for word in ("--keep_float", name)]
    start = ["--weights" if options.network.weights else "--refine", str(source)]
    remedy = shlex.join(["quant.wqaq", *bits, *grids, *kept, *same, *start])
    warning(f"calibration lost {lost:.1f} points; {other}train: {called(remedy)}")


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
