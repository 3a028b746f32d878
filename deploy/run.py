"""python -m deploy.run: classify pictures or find objects in them with a packed file, or measure its accuracy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.machine import Machine, OnCpu
from engine.cli.network import Network
from engine.cli.options import Command, DataFlags, Works
from engine.errors import BAD_CHECKPOINT, UserError
from engine.numerics.batches import at_a_time

if TYPE_CHECKING:
    from torch import Tensor

    from deploy.executors.base import Executor
    from deploy.packed import Packed
    from models.detectors.shell import Shell

EXAMPLES = (
    "deploy.run --model models_save/nin_wbab_merged.safetensors photo.jpg",
    "deploy.run --model models_save/nin_wbab_merged.safetensors --evaluate --dataset digits",
    "deploy.run --model models_save/ssdlite320_mobilenet_v3_large.safetensors --draw found photo.jpg",
)


MANY = 128
"""The largest batch size to measure: larger ones do not change which executor is the fastest."""
OF_DATA = {
    "--dataset",
    "--data",
    "--image_size",
    "--crop",
    "--flip",
    "--no-flip",
    "--val",
    "--num_workers",
    "--skip_bad",
}
"""Flags of data sets."""
OF_PICTURES = {"--top", "--score", "--draw"}
"""Flags of what is said of pictures."""
OF_BOXES, OF_CLASSES = {"--arch", "--score", "--draw"}, {"--top"}
"""Flags of detectors, and of classifiers."""
EXECUTORS = ("auto", "native", "torch", "reference")


@dataclass(frozen=True, kw_only=True)
class Here(OnCpu):
    """The machine options of packed files, which run on the CPU."""

    quiet: bool = flag("--quiet", action="store_true", help="no progress and no warnings of torch on stderr")


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The options of deploy.run."""

    model: Path = flag(
        "--model", type=argtypes.path, required=True, metavar="G", help="packed file, written by deploy.pack"
    )
    pictures: list[Path] = flag(
        "pictures", type=argtypes.path, nargs="*", metavar="IMAGE", help="pictures to classify or to find objects in"
    )
    evaluate: bool = flag("--evaluate", action="store_true", help="measure the accuracy on the test pictures instead")
    arch: str | None = flag(
        "--arch", type=argtypes.arch, metavar="M:F",
        help="your own detector, if the file holds one: its code turns outputs into boxes",
    )  # fmt: skip
    score: float = flag(
        "--score", type=argtypes.number(float, 0, 1), default=0.3, metavar="X",
        help="the lowest score of a box to report (default: 0.3)",
    )  # fmt: skip
    draw: Path | None = flag(
        "--draw", type=argtypes.path, metavar="DIR", help="write the pictures with their boxes there"
    )
    executor: str = flag(
        "--executor", choices=EXECUTORS, default="auto",
        help="native: C++, compiled on first use; torch: PyTorch; reference: slow, defines the right answer "
        "(default: auto, the fastest on this machine)",
    )  # fmt: skip
    top: int = flag(
        "--top", type=argtypes.number(int, 1, 1000), default=3, metavar="N", help="classes to name (default: 3)"
    )
    data: DataFlags = part(DataFlags)
    machine: Here = part(Here)

    def __post_init__(self) -> None:
        if self.data.mean or self.data.std:
            raise UserError(
                "--mean and --std: a packed file has its own", "leave them out, or give them to deploy.pack"
            )
        if bool(self.pictures) == self.evaluate:
            what = "both pictures and --evaluate" if self.evaluate else "no pictures"
            raise UserError(what, "name pictures to classify, or give --evaluate for the accuracy")
        if self.pictures:
            self._refuse(OF_DATA, "{} goes with --evaluate, not with pictures")
        else:
            self._refuse(OF_PICTURES, "{} goes with pictures, not with --evaluate")

    def check(self, boxes: bool) -> None:
        """Raise UserError for a flag of the other kind of network; `boxes`: whether the file holds a detector."""
        if boxes:
            self._refuse(OF_CLASSES, f"{{}} is for classifiers, and {self.model} holds a detector")
        else:
            self._refuse(OF_BOXES, f"{{}} is for detectors, and {self.model} holds a classifier")

    def _refuse(self, flags: set[str], what: str) -> None:
        typed = {word.partition("=")[0] for word in self.words}
        if given := sorted(typed & flags):
            raise UserError(what.format(given[0]), f"leave {given[0]} out")

    @property
    def batch(self) -> int:
        """The number of pictures to compute at a time."""
        return at_a_time(self.data.eval_batch_size, "cpu")

    @property
    def works(self) -> Works:
        """The options in the form of commands that run checkpoints."""
        machine = Machine(
            device="cpu", cpu=True, threads=self.machine.threads, seed=1, quiet=self.machine.quiet,
            json=self.machine.json, debug=self.machine.debug,
        )  # fmt: skip
        return Works(network=Network(arch=self.arch), data=self.data, machine=machine, words=self.words)


def parser() -> Parser:
    return Parser("deploy.run", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from deploy import packed
    from deploy.executors.choose import choose

    held = packed.open(options.model)
    options.check(bool(held.made.dataset.boxes))
    if len(held.program.answer) != 1:
        raise UserError(
            f"{options.model}: its answer has shape {held.program.answer}, not one number for each class",
            "run it from your own code with deploy.executors",
            BAD_CHECKPOINT,
        )
    many = options.batch if options.evaluate else len(options.pictures)
    executor = choose(options.executor, held.program, min(many, MANY))
    if options.evaluate:
        return _evaluated(options, held, executor)
    if held.made.dataset.boxes:
        return _detected(options, held, executor)
    return _classified(options, held, executor)


def _evaluated(options: Options, held: Packed, executor: Executor) -> dict[str, Any]:
    """Measure a packed file's accuracy as the commands for checkpoints do."""
    import torch

    from engine.tasks.of import task_of
    from engine.training import judging
    from engine.training.choose_data import open_data, say_other_pictures

    data = open_data(options.works, torch.device("cpu"), held.made, say=False)
    data.set_normalisation(held.program.mean, held.program.std)
    if data.info.image_size != held.program.picture[1]:
        size = held.program.picture[1]
        raise UserError(f"the packed network reads pictures of {size}x{size}", f"add --image_size {size}")
    say_other_pictures(held.made.dataset, data.info)
    network = as_module(executor, _shell(options, held) if held.made.dataset.boxes else None)
    task = task_of(network, data.info, held.made.arch)
    found = judging.evaluate(options.works, network, data, task, "the packed file")
    known, made = held.made.metrics, held.made.dataset
    same = known.judged and (made.name, known.judged_on) == (data.info.name, data.part)
    return {
        "text": f"{judging.in_words(task, found.score, data, known.accuracy if same else None, found.more)}; {executor.name}, {executor.how}",
        task.score.name: found.score, "loss": found.loss, **found.more, "executor": executor.name, "how": executor.how,
    }  # fmt: skip


def as_module(executor: Executor, detector: Shell | None = None) -> Any:
    """Wrap an executor as a module.

    Args:
        detector: the detector's code around the executor, if it runs the core of a detector.
    """
    from torch import nn

    class Running(nn.Module):
        captured = SimpleNamespace(detector=detector)

        def forward(self, x: Tensor) -> Tensor:
            return executor(x)

    return Running()


def _shell(options: Options, held: Packed) -> Shell:
    from deploy import boxes

    return boxes.shell_of(held.made, held.program.picture[1], options.arch, held.detector)


def _detected(options: Options, held: Packed, executor: Executor) -> dict[str, Any]:
    """Find boxes, with a line for each."""
    from deploy import boxes, drawing

    shell, paths = _shell(options, held), options.pictures
    places = boxes.places(options.draw, paths) if options.draw else []
    found = boxes.found(executor, shell, held.made, paths, options.score, options.batch)
    for one, place in zip(found, places, strict=False):
        drawing.draw(one, place)
    if not options.machine.quiet:
        print(f"run by: {executor.name}, {executor.how}", file=sys.stderr)
    text = "\n".join(boxes.lines(found, options.score))
    return {"text": text, "pictures": [one.to_dict() for one in found], "executor": executor.name, "how": executor.how}


def _classified(options: Options, held: Packed, executor: Executor) -> dict[str, Any]:
    """Classify pictures, with a line for each: its best classes and their probabilities."""
    import torch

    from deploy.operations.functions import Softmax
    from engine.data.augment import normalise
    from engine.data.pictures import read_picture

    info = held.made.dataset
    names = tuple(info.names or ())  # a network may have more classes than its pictures
    names += tuple(f"class {number}" for number in range(len(names), held.program.answer[0]))
    side, last = held.program.picture[1], held.program.operations[-1]
    gives_shares = isinstance(last, Softmax) and not last.log
    bytes_ = [torch.from_numpy(read_picture(path, side, info.crop).copy()) for path in options.pictures]
    lines, found = [], []
    for start in range(0, len(bytes_), options.batch):
        part = torch.stack(bytes_[start : start + options.batch])
        answer = executor(normalise(part, info)).double()
        shares = answer if gives_shares else torch.softmax(answer, 1)
        for path, row in zip(options.pictures[start:], shares, strict=False):
            best = row.topk(min(options.top, len(row)))
            classes = [(names[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
            found.append({"picture": str(path), "classes": [{"name": n, "probability": p} for n, p in classes]})
            lines.append(f"{path}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in classes))
    if not options.machine.quiet:
        print(f"run by: {executor.name}, {executor.how}", file=sys.stderr)
    return {"text": "\n".join(lines), "pictures": found, "executor": executor.name, "how": executor.how}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
