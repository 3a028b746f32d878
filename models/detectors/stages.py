"""The calls of a detector's core: which modules run, in which order, and what each of them reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from models.check import Misdeclared, user_code

Place = tuple[int, int]
"""Of a tensor: the stage that gives it, -1 for the picture, and its number among those of that stage."""
PICTURE: Place = (-1, 0)
CALLED = "it is called as detectors of torchvision are: detector(images) with a list of pictures, detector(images, targets) in training"


@dataclass(frozen=True)
class Stage:
    """One module of a core, as the detector calls it.

    Args:
        reads: of each leaf of its arguments the place of a tensor, or the value itself.
        form: of its arguments and keywords.
        shapes, gives: of each tensor that it gives, without the pictures, and of the whole.
    """

    name: str
    reads: tuple[Any, ...]
    form: TreeSpec
    shapes: tuple[tuple[int, ...], ...]
    gives: TreeSpec

    def run(self, module: nn.Module, known: dict[Place, Tensor], number: int) -> None:
        """Call the module, and enter what it gives among the known."""
        given = [known[leaf.place] if isinstance(leaf, Read) else leaf for leaf in self.reads]
        args, kwargs = tree_unflatten(given, self.form)
        for n, value in enumerate(tree_flatten(module(*args, **kwargs))[0]):
            known[number, n] = value


@dataclass(frozen=True)
class Read:
    """A tensor among the arguments of a stage."""

    place: Place


def answers(stages: Sequence[Stage]) -> list[tuple[Place, tuple[int, ...]]]:
    """What a core gives: the tensors that no later stage reads, with their shapes, without the pictures."""
    read = {leaf.place for stage in stages for leaf in stage.reads if isinstance(leaf, Read)}
    every = [((number, n), shape) for number, stage in enumerate(stages) for n, shape in enumerate(stage.shapes)]
    return [(place, shape) for place, shape in every if place not in read]


def watched(detector: nn.Module, names: Sequence[str], picture: Tensor, arch: str) -> list[Stage]:
    """Run a detector on a picture, and see how it calls the modules of its core.

    Args:
        picture: (3, S, S), normalised as the core is to read it.

    Raises:
        Misdeclared: exit 2 for a module that does not run once, reads what no module before it gave, gives something else than
            tensors, or a picture that reaches the first one changed.
    """
    calls: list[tuple[str, Any, Any]] = []
    with _hooked(detector, names, lambda name, given, output: calls.append((name, given, output))), torch.no_grad():
        detector.eval()
        with user_code(arch, CALLED):
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
                f"--arch {arch}: {name} of --core gives something else than tensors of a picture",
                "name modules that give tensors whose first dimension is that of the pictures",
            )
        known.update({id(value): (number, n) for n, value in enumerate(values)})
        found.append(Stage(name, reads, form, tuple(tuple(v.shape[1:]) for v in values), gives))
    return found


def _first(leaves: list[Any], picture: Tensor, name: str, arch: str) -> Tensor:
    """What the first module reads: the picture, as it was given."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) != 1 or tensors[0].shape[1:] != picture.shape or not torch.equal(tensors[0][0], picture):
        raise Misdeclared(
            f"--arch {arch}: {name} of --core does not read the picture that the detector is given, but another",
            "pictures come scaled and normalised (--image_size, --mean, --std): let the detector do neither",
        )
    return tensors[0]


def _read(leaf: Any, known: dict[int, Place], name: str, arch: str) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if id(leaf) not in known:
        raise Misdeclared(
            f"--arch {arch}: {name} of --core reads a tensor that no module of --core gave",
            "name the modules that stand between, too, or one that holds them all",
        )
    return Read(known[id(leaf)])


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
