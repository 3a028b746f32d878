"""The start of every command that trains: open the input file, open or build the network, open the data, lock the run
folder.

with Start(options, models.files, "_refine", source) as start:
    run = start.run(start.network)  # see run.py
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from torch import nn

from engine.checkpoint.description import Description
from engine.cli.naming import input_file, saved
from engine.cli.options import Trains
from engine.data.splits import Data
from engine.errors import UserError
from engine.system import ranks
from engine.tasks.of import task_of
from engine.training import flags_file, resuming
from engine.training.choose_data import show_to
from engine.training.experiment import Experiment
from engine.training.foreign import description
from engine.training.opened import Net_co, Opened
from engine.training.run import Run
from engine.training.run_folder import Following, RunFolder

if TYPE_CHECKING:
    from typing_extensions import Self


Net = TypeVar("Net", bound=nn.Module)


class Library(Protocol[Net_co]):
    """The functions for networks that a training needs; models.files has them, as engine imports no networks."""

    def open(self, path: Path, arch: str | None = None, said: Description | None = None) -> Opened[Net_co]: ...

    def build(
        self, arch: str, cfg: Sequence[int] | None = None, classes: int = 10, side: int = 32, **arch_args: Any
    ) -> Net_co: ...

    def channels(self, network: nn.Module) -> int: ...

    def size(self, arch: str, cfg: Sequence[int] | None = None, **arch_args: Any) -> int | None: ...


class Start(Generic[Net]):
    """The start of a training command, and its run; networks are of the library's type.

    Args:
        options: the command's options.
        library: opens and builds networks.
        suffix: suffix of the default output file: `_refine`.
        source: the input file, if any.
        fresh: take only the widths of that file, without weights.

    Attributes:
        network, data, arch, arch_args: set when the `with` block begins.
        parent: the checkpoint of `source`.
        default: the default output file.
    """

    def __init__(
        self, options: Trains, library: Library[Net], suffix: str, source: Path | None = None, fresh: bool = False
    ) -> None:
        self.options, self.library, self.source, self.fresh = options, library, source, fresh
        said = description(options, trains=options.training.evaluate is None)
        self.opened = library.open(source, options.network.arch, said) if source else None
        self.parent = self.opened.checkpoint if self.opened else None
        prefix = self.parent.prefix if self.parent else options.network.prefix
        self.default = saved(prefix, suffix)
        self._folder: RunFolder | None = None

    def judged(self, read: Callable[[Path, str | None], Opened[Net]]) -> Opened[Net]:
        """Open the file of --evaluate; the file of --weights is already open.

        Args:
            read: opens all kinds of files that the command can judge.

        Raises:
            UserError: if the file is missing (exit 3), or as `read`.
        """
        chosen = self.options.network
        if chosen.weights and self.opened:
            return self.opened
        maker = shlex.join(self.options.words_without("--evaluate"))
        path = input_file(self.options.training.evaluate, self.options.output.save or self.default, maker)
        return read(path, chosen.arch)

    def __enter__(self) -> Self:
        chosen = self.options.network
        if self.parent is None:
            self.library.size(chosen.name, chosen.cfg)  # checks the widths before pictures are read
        self.experiment = Experiment(self.options, self.default, self.source, self.parent)
        resuming.refuse_other_data(self.options, self.experiment.save, known=self.parent is not None)
        self.data: Data = self.experiment.data(self.fresh)
        if self.opened and self.parent:
            own = self.parent.arch_args.get("core")
            if chosen.core not in (None, own):
                raise UserError(f"--core {chosen.core}: the file has {own or 'none'}", "leave --core out")
            self.arch, self.arch_args = self.parent.arch, self.parent.arch_args
        else:
            self.arch, self.arch_args = chosen.name, {"classes": chosen.classes or self.data.info.classes}
            if chosen.core:
                self.arch_args["core"] = chosen.core
        if self.opened and not self.fresh:
            self.network: Net = self.opened.at(self.data.info.image_size).network
        else:
            cfg = self.parent.cfg if self.parent else chosen.cfg
            self.network = self.library.build(self.arch, cfg, side=self.data.info.image_size, **self.arch_args)
            show_to(self.options.data, self.data, self.library.channels(self.network), self.arch)
        self.experiment.task = task_of(self.network, self.data.info, self.arch)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        if self._folder:
            self._folder.close()

    def run(self, network: nn.Module) -> Run:
        """Return the training of a network in its run folder, which stays locked until the `with` block ends.

        Args:
            network: `self.network`, or a network made from it.

        Raises:
            UserError: if --save is one of the folder's own files (exit 2), or as RunFolder.
        """
        save = self.experiment.save
        kind = RunFolder if ranks.is_first() else Following
        self._folder = kind(flags_file.run_dir(self.options, save))
        if self._folder.owns(save):
            raise UserError(f"{save} is the run folder's own {save.name}", "name another file with --save")
        whole = {
            **self.arch_args,
            **cast(dict[str, Any], self.network.arch_args),
        }  # with the arguments that the network adds
        return Run(self.options, self.experiment, self.data, network, self.arch, whole, self._folder, self.fresh)
