"""Whether a network of the user's is what it says: its declarations, and what it answers. Ours are held to it by the tests.

Where its code is imported from: user_code.py. What pruning would do to it is tried in prune/trial.py.
"""

from __future__ import annotations

import copy
import importlib
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from engine.errors import UserError, no_memory
from model_compression import HOME, PACKAGES
from models.channels import ChannelGroup, Consumer

SEE = "see README, 'A network of your own'"
_NOT_THEIRS = (
    "<frozen",
    *(str(Path(module.__file__ or "").parent) + os.sep for module in (torch, importlib)),
    *(str(HOME / package) + os.sep for package in PACKAGES),
)


class Misdeclared(UserError):
    """A network of the user's, or the module it is in, is not what models.channels.Network asks for: exit 2."""


def one_line(fault: BaseException) -> str:
    """A fault of the user's code in one line, with the file and line where that code stood."""
    if isinstance(fault, SyntaxError):
        place, text = f"{fault.filename}:{fault.lineno}: ", f"{type(fault).__name__}: {fault.msg}"
    else:
        frames = reversed(traceback.extract_tb(fault.__traceback__))
        place = next((f"{f.filename}:{f.lineno}: " for f in frames if not f.filename.startswith(_NOT_THEIRS)), "")
        text = str(fault).partition("\n")[0]
        if not isinstance(fault, ImportError):
            text = f"{type(fault).__name__}: {text}"
    return place.removeprefix(os.getcwd() + os.sep) + text


@contextmanager
def user_code(arch: str, hint: str) -> Iterator[None]:
    """Let what the user's code raises, a sys.exit() included, end a command in two lines. No memory left is nobody's fault."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as fault:
        if no_memory(fault):
            raise
        raise Misdeclared(f"--arch {arch}: {one_line(fault)}", hint) from fault


def declarations(network: Any, arch: str, cfg: Sequence[int] | None) -> None:
    """Compare what a network says of itself with the layers that it has.

    Args:
        cfg: the widths it was asked for, None for its own.

    Raises:
        Misdeclared: at the first thing that is missing or contradicts another.
    """
    if not isinstance(network, nn.Module):
        raise Misdeclared(f"--arch {arch}: the function gives a {type(network).__name__}, not a torch.nn.Module", SEE)
    if missing := [name for name in ("cfg", "ends", "channel_groups") if not hasattr(network, name)]:
        raise Misdeclared(f"--arch {arch}: the network has no {', '.join(missing)}", SEE)
    with user_code(arch, SEE):
        fault = next(_faults(network, cfg), None)
    if fault:
        raise Misdeclared(f"--arch {arch}: {fault}", SEE)


def _faults(network: Any, asked: Sequence[int] | None) -> Iterator[str]:
    """What is wrong, in words; later ones take for granted that earlier ones are not."""
    cfg, args = list(network.cfg), getattr(network, "arch_args", {})
    if any(type(width) is not int or width < 1 for width in cfg):
        yield f"its cfg {cfg} is not a list of widths"
    if asked is not None and cfg != list(asked):
        yield f"asked for cfg {list(asked)}, the network has cfg {cfg}: the function has to use its cfg"
    if not isinstance(args, dict) or "cfg" in args:
        yield f"its arch_args {args!r} are not a dict of what the function needs besides cfg and classes"
    yield from (f"{n} is lazy: give it its shape" for n, p in network.named_parameters() if is_lazy(p))
    layers = dict(network.named_modules(remove_duplicate=False))
    if isinstance(network.ends, str) or len(network.ends) != 2:
        yield f"its ends {network.ends!r} are not two names: the layers at the picture and at the classes"
    for end in network.ends:
        yield from _layer(layers, end, "ends", nn.Conv2d, nn.Linear)
    groups = network.channel_groups()
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, ChannelGroup) for group in groups):
        yield f"channel_groups() gives {groups!r}, not a list of ChannelGroup"
    if groups and len(groups) != len(cfg):  # without any it can be trained and quantized, and not pruned
        yield f"it declares {len(groups)} channel groups and {len(cfg)} widths in cfg: there has to be one for each"
    for place, (group, width) in enumerate(zip(groups, cfg, strict=False)):
        yield from _group(layers, group, width, f"cfg[{place}]")
    for role in ("gate", "producer"):
        names = [getattr(group, role) for group in groups]
        yield from (f"{name} is the {role} of two channel groups" for name in names if names.count(name) > 1)
    readers = [consumer.layer for group in groups for consumer in group.consumers]
    yield from (f"{name} reads two channel groups" for name in readers if readers.count(name) > 1)


def _layer(layers: dict[str, nn.Module], name: Any, role: str, *kinds: type[nn.Module]) -> Iterator[str]:
    """Whether there is such a layer with a weight of its own."""
    layer = layers.get(name)
    if layer is None:
        close = get_close_matches(str(name), [n for n, m in layers.items() if isinstance(m, kinds)], 1)
        yield f"{role}: no layer is called {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    elif not isinstance(layer, kinds):
        yield f"{role}: {name} is a {type(layer).__name__}, not a {' or '.join(kind.__name__ for kind in kinds)}"
    elif layer._parameters.get("weight") is None:
        yield f"{role}: {name} has no weight of its own"  # affine=False, or a parametrization


def _group(layers: dict[str, nn.Module], group: ChannelGroup, width: int, place: str) -> Iterator[str]:
    channels, says = width * group.unit, f"{place} = {width}" + (f", in units of {group.unit}" * (group.unit > 1))
    yield from _layer(layers, group.gate, "gate", nn.BatchNorm2d)
    if (has := layers[group.gate].num_features) != channels:
        yield f"gate {group.gate} has {has} channels, {says}: groups and widths have to be in one order"
    yield from _layer(layers, group.producer, "producer", nn.Conv2d)
    if isinstance(layers[group.producer], nn.ConvTranspose2d) or (
        (has := layers[group.producer].out_channels) != channels
    ):
        yield f"producer {group.producer} of gate {group.gate} gives {has} channels, {says}"
    if not isinstance(group.consumers, tuple) or not all(isinstance(c, Consumer) for c in group.consumers):
        yield f"the consumers of gate {group.gate} are {group.consumers!r}, not a tuple of Consumer (one: (Consumer(...),))"
    for consumer in group.consumers:
        yield from _consumer(layers, consumer, channels, width, f"consumer {consumer.layer} of gate {group.gate}")


def _consumer(layers: dict[str, nn.Module], consumer: Consumer, channels: int, units: int, name: str) -> Iterator[str]:
    yield from _layer(layers, consumer.layer, "consumer", nn.Conv2d, nn.Linear)
    layer: Any = layers[consumer.layer]
    reads = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    if reads != channels:
        flat = isinstance(layer, nn.Linear) and reads % channels == 0
        why = "; end in models.blocks.GlobalMean, not in a flattened picture" if flat else ""
        yield f"{name} reads {reads} channels, the gate has {channels}{why}"
    if channels % consumer.shuffle:
        yield f"{name}: a shuffle of {consumer.shuffle} does not divide {channels} channels"
    if consumer.after is None:
        return
    yield from _layer(layers, consumer.after, "after", nn.Conv2d)
    after: Any = layers[consumer.after]
    if getattr(layer, "groups", 1) != units:
        yield f"{name} names a layer after it, so it has to be depthwise: one group for each of the {units} units"
    if (after.in_channels, after.groups, after.kernel_size) != (layer.out_channels, 1, (1, 1)):
        yield f"{name}: {consumer.after} is no 1 x 1 layer that reads its {layer.out_channels} channels"
    if layer.bias is not None and after.bias is None:
        yield f"{name}: {consumer.after} needs a bias, which takes up that of dropped channels"


def check_output(network: nn.Module, arch: str, classes: int, size: int | None = None) -> None:
    """Show a network two black pictures, in eval mode; neither it nor torch's random state is changed.

    Args:
        size: of the pictures it is going to see; None: not known yet, so that one for another size than 32 may fail.

    Raises:
        Misdeclared: unless it answers with one tensor (2, classes).
    """
    side = size or 32
    tensors = [*network.parameters(), *network.buffers()]
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            user_code(arch, f"it is shown pictures of 3x{side}x{side}"),
        ):
            found = copy.deepcopy(network).eval()(torch.zeros(2, 3, side, side, device=like.device, dtype=like.dtype))
    except Misdeclared:
        if size is None:
            return
        raise
    if not isinstance(found, Tensor):
        raise Misdeclared(f"--arch {arch}: forward gives a {type(found).__name__}, not one tensor of logits", SEE)
    if found.shape != (2, classes):
        raise Misdeclared(
            f"--arch {arch}: forward gives {tuple(found.shape)} for 2 pictures and {classes} classes, not (2, {classes})",
            "the function has to use its classes, and the network to end in a mean over the picture",
        )
