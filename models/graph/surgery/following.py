"""Numbers in the attributes of a user's code that follow the widths of its layers, as in `torch.split(x, self.width, 1)`.

A narrower copy whose code does not run gets other numbers: an attribute that is the size of a layer below its module, or
a whole share of it, in every module of its class, takes the layer's new size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any, NamedTuple

from torch import Tensor, nn

from models.graph.capture.form import answers
from models.graph.normal import NormalForm
from models.graph.surgery.resize import resized

SHARES = (1, 2, 3, 4)
"""How many times an attribute may be in a layer's size."""
LEAST = 2
"""A width of 1 is not told from broadcasting; see prune.widths.FEWEST."""
MOST = 32
"""Most combinations of numbers to try."""
LISTS = (list, tuple)
CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Kind(NamedTuple):
    """An attribute of all modules of one class; `place`: of a list or tuple of numbers."""

    of: type
    name: str
    place: int | None = None

    def __str__(self) -> str:
        return f"{self.of.__name__}.{self.name}" + ("" if self.place is None else f"[{self.place}]")

    def read(self, module: nn.Module) -> Any:
        held: Any = vars(module).get(self.name)
        if self.place is None:
            return held
        return held[self.place] if type(held) in LISTS and self.place < len(held) else None

    def write(self, module: nn.Module, number: int) -> None:
        if self.place is not None:
            held = [*vars(module)[self.name]]
            held[self.place] = number
            vars(module)[self.name] = type(vars(module)[self.name])(held)
        else:
            vars(module)[self.name] = number  # past a user's __setattr__


class Narrow(NamedTuple):
    """A narrower copy of a network.

    Args:
        runs: whether it gives answers of the network's shape.
        followed: the attributes that follow its layers' widths.
    """

    model: nn.Module
    runs: bool
    followed: tuple[str, ...] = ()


def narrow_copy(
    model: nn.Module, form: NormalForm, shapes: Mapping[str, tuple[int, ...]], whole: frozenset[str]
) -> Narrow:
    """Return a copy with tensors of other shapes, whose attributes follow them if it does not run otherwise.

    Args:
        form: the normal form of `model`; the copy has to give answers of the same shape.
        shapes, whole: as `resized`.

    Raises:
        NotLegal: as `resized`.
    """
    small = resized(model, shapes, whole)

    def runs() -> bool:
        return answers(small, form.captured.picture, form.captured.answer)

    if runs():
        return Narrow(small, True)
    choices = _choices(model, small)
    modules = _by_class(small)
    before = {kind: [kind.read(module) for module in modules[kind.of]] for kind in choices}
    for numbers in islice(product(*choices.values()), MOST):
        _set(modules, dict(zip(choices, numbers, strict=True)))
        if runs():
            followed = [str(kind) for kind, new in zip(choices, numbers, strict=True) if [*new] != before[kind]]
            return Narrow(small, True, tuple(followed))
    _set(modules, before)
    return Narrow(small, False)


def _set(modules: Mapping[type, list[nn.Module]], numbers: Mapping[Kind, Any]) -> None:
    for kind, each in numbers.items():
        for module, number in zip(modules[kind.of], each, strict=True):
            kind.write(module, number)


def _by_class(model: nn.Module) -> dict[type, list[nn.Module]]:
    """Return the modules of each class of a user's code."""
    found: dict[type, list[nn.Module]] = defaultdict(list)
    for module in model.modules():
        if not any(kind.__module__.startswith("torch.nn.") and kind not in CONTAINERS for kind in type(module).__mro__):
            found[type(module)].append(module)
    return found


def _choices(model: nn.Module, small: nn.Module) -> dict[Kind, list[tuple[int, ...]]]:
    """Return the numbers that each attribute may have in the modules of its class: those of layers' new sizes, then the old ones."""
    found = {}
    narrow = _by_class(small)
    for of, modules in _by_class(model).items():
        before, after = ([_tensors(module) for module in each] for each in (modules, narrow[of]))
        for kind in _kinds(of, modules[0]):
            old = tuple(kind.read(module) for module in modules)
            if all(type(number) is int and number >= LEAST for number in old):
                new = [*dict.fromkeys(_followed(old, before, after))]
                if new and new != [old]:
                    found[kind] = [*(numbers for numbers in new if numbers != old), old]
    return found


def _kinds(of: type, module: nn.Module) -> Iterator[Kind]:
    for name, held in vars(module).items():
        if type(held) is int:
            yield Kind(of, name)
        elif type(held) in LISTS:
            yield from (Kind(of, name, place) for place in range(len(held)))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _followed(
    old: tuple[int, ...], before: list[dict[str, Tensor]], after: list[dict[str, Tensor]]
) -> Iterator[tuple[int, ...]]:
    """Yield the numbers that follow an axis of a tensor which is the same share of them in all modules.

    Args:
        before, after: the tensors of each module, by name, in the network and in its narrower copy.
    """
    for share in SHARES:
        for name, tensor in before[0].items():
            for axis in range(min(tensor.ndim, 2)):
                sizes = [_size(held, name, axis) for held in before]
                new = [_size(held, name, axis) for held in after]
                if sizes == [number * share for number in old] and not any(size % share for size in new):
                    yield tuple(size // share for size in new)


def _size(held: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Return the size of a tensor's axis; -1 without it."""
    tensor = held.get(name)
    return -1 if tensor is None or axis >= tensor.ndim else tensor.shape[axis]
