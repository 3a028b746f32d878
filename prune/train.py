"""python -m prune.train: train in float, plain or sparse, refine a pruned file, or train its from-scratch control."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.naming import command_hint, saved
from engine.cli.options import LARGEST, Training, Trains, recipe_help
from engine.errors import UserError
from engine.training import recipe

if TYPE_CHECKING:
    from torch import nn

    from engine.training.start import Start
    from models.graph.normal import NormalForm

EXAMPLES = (
    "prune.train",
    "prune.train -sr --s 0.0001",
    "prune.train --arch nin_gc -sr --s 0.001",
    "prune.train --refine models_save/nin_prune.pth",
    "prune.train --from_scratch models_save/nin_prune.pth",
    "prune.train --evaluate models_save/nin.pth",
)


@dataclass(frozen=True, kw_only=True)
class Options(Trains):
    """Options for sparse training and for the file to start from."""

    sparse: bool = flag("-sr", action="store_true", help="sparse training: penalise the BN scales")
    s: float | None = flag(
        "--s", metavar="X",
        type=argtypes.number(float, 0, LARGEST, open_low=True, hint="leave --s out for the default"),
        help="strength of -sr (default: 0.0001, for nin_gc 0.001)",
    )  # fmt: skip
    refine: Path | bool | None = flag(
        "--refine", nargs="?", const=True, type=argtypes.path, metavar="F",
        help="go on training a pruned file (default: the pruned file of --arch)",
    )  # fmt: skip
    from_scratch: Path | bool | None = flag(
        "--from_scratch", nargs="?", const=True, type=argtypes.path, metavar="F",
        help="train a pruned file's widths from fresh weights: the control for --refine",
    )  # fmt: skip
    training: Training = part(Training, **recipe_help({"float": recipe.for_float}))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refine is not None and self.from_scratch is not None:
            raise UserError("--refine contradicts --from_scratch", "give one of them")
        if self.s is not None and not self.sparse:
            raise UserError("--s without -sr has no effect", "add -sr")
        self.network.only_weights("--refine and --from_scratch", self.given)
        if self.given is not None:
            self.network.refuse_widths(" contradicts --refine and --from_scratch: the file has its own")

    @property
    def given(self) -> Path | bool | None:
        """The file to start from, True for the default one, None for none."""
        return self.refine if self.refine is not None else self.from_scratch

    def source(self) -> Path | None:
        """Return the file to start from: a pruned file or that of --weights. None means fresh weights.

        Raises:
            UserError: exit 3 if the file does not exist.
        """
        if self.given is None and self.network.weights is None:
            return None
        prefix, pruning = self.network.prefix, "prune.normal_regular --percent 0.5"
        maker = "prune.gc --percent 0.4" if prefix == "nin_gc" else command_hint(pruning, self.network.arch)
        return self.network.file(self.given, saved(prefix, "_prune"), maker)

    @property
    def suffix(self) -> str:
        """The suffix of the default output file's name."""
        if self.given is not None:
            return "_refine" if self.refine is not None else "_scratch"
        return "_preprune" if self.sparse else ""


def parser() -> Parser:
    return Parser("prune.train", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from engine.checkpoint.history import Refine, Train, prunings
    from engine.training.judging import evaluate_file, in_keys, in_words
    from engine.training.start import Start
    from models import files
    from models.fused.view import chosen as view_of_training
    from models.registry import NETWORKS
    from prune.sparsity import gammas, penalty, say_what_moved
    from prune.trial import try_to_cut

    fresh = options.from_scratch is not None
    start = Start(options, files, options.suffix, options.source(), fresh)
    if fresh and start.opened and start.opened.checkpoint.arch not in NETWORKS:
        raise UserError(
            f"--from_scratch: only networks of this toolkit can be built afresh with given widths, not {start.opened.checkpoint.arch}",
            "leave --from_scratch out to train the whole network",
        )
    if options.training.evaluate is not None:
        opened = start.judged(files.open)
        return evaluate_file(options, opened)
    with start:
        arch, data = start.arch, start.data
        if options.sparse:
            try_to_cut(start.network, _plain(start), arch)
        s = (options.s or (1e-3 if arch == "nin_gc" else 1e-4)) if options.sparse else None
        refine = start.parent is not None and not fresh
        stage = Refine(s=s) if refine else Train(s=s, from_scratch=fresh)
        chosen = recipe.ORIGINAL if options.training.original else recipe.for_float(data.info.name, refine=refine)
        hooks: dict[str, Any] = {"penalty": penalty(s)} if s else {}
        run = start.run(start.network)
        view = partial(view_of_training, start.network, options.training.fused)
        before = gammas(start.network) if s else []
        rows, used = run.train(chosen, stage, arch_args=start.arch_args, view=view, **hooks)
        if s and not run.complete and not options.machine.quiet:
            say_what_moved(before, gammas(start.network))
        if isinstance(stage, Train) and start.parent:  # record the prunings that this run is the control of
            stage = replace(stage, pruned=tuple(prunings(start.parent.history)))
        found, path = run.finish(replace(stage, epochs=used.epochs))
        text = in_words(run.experiment.task, found.score, data, more=found.more)
        return {
            "text": text,
            "path": path,
            **in_keys(run.experiment.task, found.score, more=found.more),
            "epochs": rows,
        }


def _plain(start: Start[NormalForm]) -> nn.Module:
    """Return the network to train, as its code builds it."""
    from models import files, registry

    if start.parent and not start.fresh:
        return files.plain(start.parent, start.options.network.arch)
    return registry.build(start.arch, start.network.cfg or None, **start.arch_args)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
