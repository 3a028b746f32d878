"""The calls of a detector's core: the modules in the order in which they run, and the inputs of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from models.check import Misdeclared, as_misdeclared

Place = tuple[int, int]
"""The place of a tensor: the stage that returns it, -1 for the picture, and its number among the stage's tensors."""
PICTURE: Place = (-1, 0)
CALLED = (
    "let it run like torchvision's detectors: detector(images) with a list of pictures, "
    "detector(images, targets) in training"
)


@dataclass(frozen=True)
class Stage:
    """One module of a core, as the detector calls it.

    Args:
        name: the module's name in the detector.
        reads: for each leaf of its arguments, the place of a tensor or the value itself.
        form: the tree of its arguments and keywords.
        shapes: the shape of each tensor that it returns, without the number of pictures.
        gives: the tree of its result.
    """

    name: str
    reads: tuple[Any, ...]
    form: TreeSpec
    shapes: tuple[tuple[int, ...], ...]
    gives: TreeSpec

    def run(self, module: nn.Module, known: dict[Place, Tensor], number: int) -> None:
        """Call the module with tensors of `known`, and add the tensors that it returns."""
        given = [known[leaf.place] if isinstance(leaf, FromPlace) else leaf for leaf in self.reads]
        args, kwargs = tree_unflatten(given, self.form)
        for n, value in enumerate(tree_flatten(module(*args, **kwargs))[0]):
            known[number, n] = value


@dataclass(frozen=True)
class FromPlace:
    """A tensor among the arguments of a stage."""

    place: Place


def answers(stages: Sequence[Stage]) -> list[tuple[Place, tuple[int, ...]]]:
    """Return the outputs of a core: the tensors that no stage reads, with their shapes without the pictures' number."""
    read = {leaf.place for stage in stages for leaf in stage.reads if isinstance(leaf, FromPlace)}
    every = [((number, n), shape) for number, stage in enumerate(stages) for n, shape in enumerate(stage.shapes)]
    return [(place, shape) for place, shape in every if place not in read]


def watched(detector: nn.Module, names: Sequence[str], picture: Tensor, arch: str) -> list[Stage]:
    """Run a detector on a picture and record how it calls the modules of its core.

    Args:
        names: the names of the core's modules.
        picture: (3, S, S), normalised for the core.
        arch: the network's name in messages.

    Raises:
        Misdeclared: exit 2 for a module that does not run exactly once, reads a tensor from outside the core or returns
            anything else than tensors, or if the first module reads a changed picture.
    """
    calls: list[tuple[str, Any, Any]] = []
    with _hooked(detector, names, lambda name, given, output: calls.append((name, given, output))), torch.no_grad():
        detector.eval()
        with as_misdeclared(arch, CALLED):
            detector([picture])
    ran = [name for name, *_ in calls]
    for name in names:
        if ran.count(name) != 1:
            raise Misdeclared(
                f"--arch {arch}: {name} of --core runs {ran.count(name)} times for a picture, not once",
                "name modules that the detector calls once: backbone,head",
            )
    known, found = dict[int, Place](), list[Stage]()
    for number, (name, given, output) in enumerate(calls):
        leaves, form = tree_flatten(given)
        if not number:
            known[id(_first(leaves, picture, name, arch))] = PICTURE
        reads = tuple(_read(leaf, known, name, arch) for leaf in leaves)
        values, gives = tree_flatten(output)
        if not values or not all(isinstance(v, Tensor) and v.is_floating_point() and len(v) == 1 for v in values):
            raise Misdeclared(
                f"--arch {arch}: {name} of --core returns something other than float tensors with one entry a picture",
                "name modules that return tensors whose first dimension is the number of pictures",
            )
        known.update({id(value): (number, n) for n, value in enumerate(values)})
        found.append(Stage(name, reads, form, tuple(tuple(v.shape[1:]) for v in values), gives))
    return found


def _first(leaves: list[Any], picture: Tensor, name: str, arch: str) -> Tensor:
    """Return the tensor that the first module reads, which must be the given picture.

    Raises:
        Misdeclared: exit 2 for any other input.
    """
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) != 1 or tensors[0].shape[1:] != picture.shape or not torch.equal(tensors[0][0], picture):
        raise Misdeclared(
            f"--arch {arch}: {name} of --core reads another tensor than the picture given to the detector",
            "let the detector neither scale nor normalise: --image_size, --mean and --std do that",
        )
    return tensors[0]


def _read(leaf: Any, known: dict[int, Place], name: str, arch: str) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if id(leaf) not in known:
        raise Misdeclared(
            f"--arch {arch}: {name} of --core reads a tensor that no module of --core returned",
            "also name the modules between them in --core, or one module that holds them all",
        )
    return FromPlace(known[id(leaf)])


@contextmanager
def _hooked(detector: nn.Module, names: Sequence[str], note: Callable[[str, Any, Any], None]) -> Iterator[None]:
    def hook(name: str) -> Any:
        return lambda module, args, kwargs, output: note(name, (args, kwargs), output)

    handles = [detector.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
