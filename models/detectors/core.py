"""The core of a detector as a network from pictures to all its raw outputs. The code around the core: shell.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from engine.cli.archs import library
from models.check import Misdeclared
from models.detectors import faithful, sizes
from models.detectors.shell import Shell
from models.detectors.stages import PICTURE, Place, Stage, answers, watched


class Core(nn.Module):
    """The trained modules of a detector, one after the other, under their own names.

    Shapes: (B, 3, S, S) -> (B, numbers): the outputs that no module of the core reads, each flattened, side by side.

    Attributes:
        normalisation: mean and standard deviation of the detector's own transform; None without one.

    Args:
        detector: called as torchvision's detectors are, `detector(images, targets)`. It is kept, not copied.
        names: the names of the core's modules.
        arch: the network's name in messages.
        classes: number of classes of objects, without the background.

    Raises:
        Misdeclared: exit 2 for a name of no module, or parameters outside of the core.
    """

    def __init__(self, detector: nn.Module, names: Sequence[str], arch: str, classes: int) -> None:
        super().__init__()
        for name in names:
            try:
                module = detector.get_submodule(name) if name else None
            except AttributeError:
                module = None
            if module is None:
                known = ", ".join(name for name, _ in detector.named_children())
                raise Misdeclared(
                    f"--arch {arch}: --core names {name!r}, which is not a module of the detector",
                    f"name some of its modules: {known}",
                )
            _place(self, name, module)
        self.normalisation = sizes.normalisation(detector)
        self._detector = (detector,)  # in a tuple, so that nn.Module does not register it
        self._classes, self._names, self._arch, self._stages, self._side = classes, tuple(names), arch, list[Stage](), 0
        own = {id(parameter) for parameter in self.parameters()}
        if lost := [name for name, value in detector.named_parameters() if id(value) not in own]:
            raise Misdeclared(
                f"--arch {arch}: {lost[0]} lies outside of --core {','.join(names)}",
                "name all modules with parameters",
            )

    def fit_to(self, picture: tuple[int, int, int]) -> None:
        """Set the detector to pictures of a size, and record how it calls its modules.

        Raises:
            Misdeclared: as sizes.set_side, stages.watched and faithful.check.
        """
        detector, side = self._detector[0], picture[-1]
        if side == self._side:
            return
        sizes.set_side(detector, side)
        like = next(self.parameters())
        shown = torch.rand(picture, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
        self._stages, self._side = watched(detector, self._names, shown, self._arch), 0
        if not library(self._arch):  # tests compare torchvision's
            faithful.check(self._shell(side), self.eval(), torch.stack([shown, shown.flip(-1)]), self._arch)
        self._side = side  # after the check, so that a second try is checked, too

    def forward(self, x: Tensor) -> Tensor:
        known: dict[Place, Tensor] = {PICTURE: x}
        for number, stage in enumerate(self._stages):
            stage.run(self.get_submodule(stage.name), known, number)
        return torch.cat([known[place].flatten(1) for place, _ in answers(self._stages)], 1)

    @property
    def shell(self) -> Shell:
        """The detector's code around the core."""
        return self._shell(self._side)

    def _shell(self, side: int) -> Shell:
        return Shell(self._detector[0], self._stages, side, self._arch, self._classes)


def _place(core: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module under its dotted name."""
    *above, leaf = name.split(".")
    for part in above:
        if part not in core._modules:
            core.add_module(part, nn.Module())
        core = cast(nn.Module, core._modules[part])
    core.add_module(leaf, module)
