"""Read a state_dict with a description as a checkpoint; files.py reads files that describe themselves.

The head, the tensors whose shape depends on the number of classes, is found by building the network for two numbers of
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.checkpoint.description import Description
from engine.checkpoint.format import Checkpoint, Foreign, Metrics
from engine.checkpoint.history import Original, is_originals
from engine.checkpoint.provenance import Provenance
from engine.checkpoint.words import counted
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, UserError
from engine.numerics import random_state
from engine.system.messages import notice, some
from models import legacy, registry, user_code

State = dict[str, Tensor]
SHOWN = 5
"""The most names in a message."""
ANY = 10
"""The number of classes to build a network for, if neither flags nor data give one."""


def described(found: Checkpoint | Foreign, path: Path, said: Description) -> Checkpoint:
    """Make a checkpoint of a state_dict: unwrap its keys, fit them to the network, initialise a new head if allowed.

    Raises:
        UserError: for a file that describes itself, flags that contradict its shapes, or other classes without a seed
            for a new head (exit 2); for keys or shapes that do not fit the network (exit 3).
    """
    if isinstance(found, Checkpoint):
        if not said.bare:
            return found
        text = f"{path} is a checkpoint, which describes itself"
        raise UserError(text, "give it as the command's input file, without --weights")
    known, state = _network(found, path, said)
    own = known.outline(said.classes or ANY)
    if ":" in known.arch:
        state = legacy.unwrapped(state, set(own.state_dict()))
    for key in [key for key in own.state_dict() if key.endswith("num_batches_tracked")]:
        if key.replace("num_batches_tracked", "running_mean") in state:  # files of old programs lack these counters
            state.setdefault(key, torch.tensor(0))
    head = _head(own, known, said.classes or ANY)
    _check_keys(state, own, head, known.arch, path)
    counts = {grows.classes(state[key]) for key, grows in head.items() if key in state}
    has = counts.pop() if len(counts) == 1 else None
    classes = said.classes or has or ANY
    fresh = {} if counts or has == classes else head
    if fresh:
        state = _with_fresh(state, fresh, known, path, said, has)
    own = own if classes == (said.classes or ANY) else known.outline(classes)
    more = cast(dict[str, Any], getattr(own, "arch_args", {})) if known.arch in registry.NETWORKS else {}
    return Checkpoint(
        arch=known.arch,
        arch_args={"classes": classes, **known.arch_args, **more},
        cfg=registry.widths(known.arch, own) or list(known.cfg or []),
        state_dict=state,
        history=(Original(made_fresh=tuple(fresh), elsewhere=known.elsewhere),),
        dataset=DataInfo.unknown(classes, said.image_size, getattr(own, "normalisation", None)),
        metrics=Metrics(0.0 if fresh else _accuracy(found, path)),
        provenance=Provenance(),
        format="foreign",
        sha256=found.sha256,
        checksums=found.checksums,
    )


@dataclass(frozen=True)
class _Known:
    """A network without its classes: the other arguments of registry.build, and the origin of its weights (see Original)."""

    arch: str
    cfg: Sequence[int] | None
    arch_args: dict[str, Any] = field(default_factory=dict)
    elsewhere: bool = True

    def outline(self, classes: int) -> nn.Module:
        return registry.outline(self.arch, self.cfg, classes, **self.arch_args)


def _network(found: Foreign, path: Path, said: Description) -> tuple[_Known, State]:
    """Return the described network, and the file's tensors by its names; shapes identify a network of this toolkit."""
    state = dict(found.state_dict)
    if said.arch and (":" in said.arch or legacy.known_arch(state) is None):
        return _Known(said.arch, said.cfg, {"core": said.core} if said.core else {}), state
    if legacy.known_arch(state) is None:
        text = f"{path}: its weights belong to no known network ({', '.join([*state][:3])}, ...)"
        raise UserError(text, f"name their network: --arch torchvision:NAME, {user_code.FORMS}")
    adopted = legacy.adopt(found, path)
    if said.arch not in (None, adopted.arch):
        raise UserError(f"{path}: the file holds {adopted.arch}, but --arch is {said.arch}", "leave --arch out")
    if said.cfg not in (None, adopted.cfg):
        raise UserError(f"{path} has cfg {adopted.cfg}, not {said.cfg}", "leave --cfg out")
    arch_args = {name: value for name, value in adopted.arch_args.items() if name != "classes"}
    elsewhere = not is_originals(adopted.history)
    return _Known(adopted.arch, adopted.cfg, arch_args, elsewhere), dict(adopted.state_dict)


@dataclass(frozen=True)
class _Grows:
    """A tensor's length along an axis: `each` for a class (several in a detector), plus `besides` (its background)."""

    axis: int
    each: int
    besides: int

    def classes(self, tensor: Tensor) -> int:
        """Return the number of classes that a tensor is for; 0 if its length does not fit."""
        length = tensor.shape[self.axis] if self.axis < tensor.ndim else 0
        found, rest = divmod(length - self.besides, self.each)
        return 0 if rest else max(0, found)


def _head(own: nn.Module, known: _Known, classes: int) -> dict[str, _Grows]:
    """Return the tensors whose length depends on the classes: those that grow when built for one class more."""
    try:
        larger = {key: tensor.shape for key, tensor in known.outline(classes + 1).state_dict().items()}
    except UserError:  # the network allows only this number of classes
        return {}
    found = {}
    for key, tensor in own.state_dict().items():
        grown = [
            axis for axis, (old, new) in enumerate(zip(tensor.shape, larger.get(key, ()), strict=False)) if old != new
        ]
        if len(grown) != 1:
            continue
        axis, each = grown[0], larger[key][grown[0]] - tensor.shape[grown[0]]
        besides = tensor.shape[axis] - each * classes
        if each > 0 and besides in (0, each):
            found[key] = _Grows(axis, each, besides)
    return found


def _with_fresh(
    state: State, head: dict[str, _Grows], known: _Known, path: Path, said: Description, has: int | None
) -> State:
    """Return the tensors with a new head for the wanted classes, in the network's own initialisation.

    Args:
        has: the file's number of classes; None if it has no head.
    """
    classes, names = said.classes or ANY, some([*head])
    if said.seed is None:
        lacks = (
            f"has {counted(has, 'class')}, but {said.said_by} asks for {classes}"
            if has
            else f"has no last layer: no {names}"
        )
        raise UserError(f"{path} {lacks}", said.remedy)
    with random_state.kept(said.seed):
        made = registry.build(known.arch, known.cfg, classes, **known.arch_args).state_dict()
    for key, grows in head.items():
        axis = grows.axis
        tensor, stored = made[key], state.get(key, made[key])
        if stored.ndim == tensor.ndim:  # a pruned network has a narrower head
            for other in (each for each in range(tensor.ndim) if each != axis):
                tensor = tensor.narrow(other, 0, min(stored.shape[other], tensor.shape[other]))
        state[key] = tensor.clone()
    why = f"the file has {counted(has, 'class')}, but {said.said_by} asks for {classes}" if has else "the file has none"
    notice(f"{names} {'is' if len(head) == 1 else 'are'} initialised afresh: {why}")
    return state


def _check_keys(state: State, own: nn.Module, head: dict[str, _Grows], arch: str, path: Path) -> None:
    """Refuse keys that the network lacks or has in another shape.

    A captured network may be narrower in the file. A head may be missing completely, or be for other classes.

    Raises:
        UserError: with the number of such keys and the network's most similar names (exit 3).
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in own.state_dict().items()}

    def fits(key: str, shape: tuple[int, ...]) -> bool:
        pairs = list(enumerate(zip(shape, shapes.get(key, ()), strict=False)))
        grows = head[key].axis if key in head else None
        same = [axis == grows or old == new or (axis < 2 and old < new) for axis, (old, new) in pairs]
        return key in shapes and len(shape) == len(shapes[key]) and all(same)

    astray = [key for key, tensor in state.items() if not fits(key, tuple(tensor.shape))]
    missing = [key for key in shapes if key not in state and (key not in head or not state.keys().isdisjoint(head))]
    if astray:
        near = [_nearest(key, state[key], shapes, missing) for key in astray[:SHOWN]]
        more = f"; and {len(astray) - SHOWN} more" if len(astray) > SHOWN else ""
        alike = all(key in shapes for key in astray)
        what = "tensors have another shape than in" if alike else "keys do not fit"
        text = f"{len(astray)} of its {len(state)} {what} {arch}: {'; '.join(near)}{more}"
    elif missing:
        text = f"it lacks {len(missing)} of the {len(shapes)} keys of {arch}: {some(missing)}"
    else:
        return
    raise UserError(f"{path}: {text}", legacy.other(state, arch), BAD_CHECKPOINT)


def _nearest(key: str, tensor: Tensor, shapes: dict[str, tuple[int, ...]], missing: list[str]) -> str:
    """Return a key that does not fit, with its wrong shape, or with the most similar key that the file lacks."""
    if key in shapes:
        return f"{key} has shape {tuple(tensor.shape)}, not {shapes[key]}"
    close = get_close_matches(key, missing or [*shapes], n=1, cutoff=0)
    return f"{key} (nearest: {close[0]})" if close else key


def _accuracy(found: Foreign, path: Path) -> float:
    try:
        return legacy.stored_accuracy(found)
    except (ValueError, TypeError, RuntimeError) as fault:
        raise UserError(f"{path}: {fault}", "make the file again", BAD_CHECKPOINT) from fault
