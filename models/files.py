"""Rebuild the float and pruned networks of checkpoint files and load their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from engine.checkpoint.description import Description
from engine.checkpoint.format import Checkpoint, load
from engine.checkpoint.history import Calibrate, Merge, Quantize, prunings
from engine.cli.archs import is_users_code
from engine.cli.naming import called
from engine.errors import BAD_CHECKPOINT, UserError, prefix_path
from models import forms, legacy, registry, user_code, weights
from models.check import Misdeclared
from models.forms import build as build, channels as channels  # part of the interface start.Library
from models.registry import size

if TYPE_CHECKING:
    from models.graph.normal import NormalForm
    from models.graph.surgery.stored import Stored


_OTHER_ARCH = "was it made with another --arch?"


@dataclass(frozen=True)
class Opened:
    """An opened file and its network.

    Args:
        restore: rebuilds the network from a checkpoint, as `models.files.restore` does with the same arch.
    """

    path: Path
    checkpoint: Checkpoint
    network: NormalForm
    restore: Callable[[Checkpoint], NormalForm]

    def at(self, side: int) -> Opened:
        """Return the same file for pictures of this side; the network is captured again if the side is another one.

        Raises:
            UserError: if the network cannot read such pictures.
        """
        if side == self.checkpoint.dataset.image_size:
            return self
        other = replace(self.checkpoint, dataset=replace(self.checkpoint.dataset, image_size=side))
        return replace(self, network=self.restore(other))


def read(path: Path, said: Description | None = None) -> Checkpoint:
    """Read the checkpoint of a file, of this toolkit or of the original repository; its bytes are read once.

    Args:
        said: the flags' description of a bare state_dict, see weights.described.

    Raises:
        UserError: for a file that cannot be used (exit 3).
    """
    found = load(path)
    return weights.described(found, path, said) if said else legacy.adopt(found, path)


def open(path: Path, arch: str | None = None, said: Description | None = None) -> Opened:
    """Read a float or pruned file and rebuild its network; quant.restore.open opens files of every kind.

    Args:
        arch: the value of --arch, as in `restore`.
        said: as in `read`.

    Raises:
        UserError: as `read` and `restore`, naming the file.
    """
    checkpoint = read(path, said)
    with prefix_path(path):
        return Opened(path, checkpoint, restore(checkpoint, arch), lambda other: restore(other, arch))


def restore(checkpoint: Checkpoint, arch: str | None = None) -> NormalForm:
    """Rebuild a float or pruned network.

    Args:
        arch: the value of --arch. Your own network needs it, as a file alone never causes an import.

    Raises:
        UserError: for quantized or merged files, and for other names or shapes (exit 3); for another --arch (exit 2).
    """
    if late := [stage.name for stage in checkpoint.history if isinstance(stage, (Quantize, Calibrate, Merge))]:
        raise UserError(
            f"the file holds a network after stage '{late[0]}'; a float network is needed here",
            "start from the float or pruned file it was made from; to evaluate this file: "
            + called("quant.wqaq --evaluate F"),
            BAD_CHECKPOINT,
        )
    model = rebuild(checkpoint, arch)
    load_weights(model, checkpoint.state_dict, checkpoint.arch)
    return model


def rebuild(checkpoint: Checkpoint, arch: str | None = None) -> NormalForm:
    """Build the network of a checkpoint with fresh weights and the widths of the file's tensors."""
    small = _narrow(_plain(checkpoint, arch), checkpoint)
    classes, side = checkpoint.classes, checkpoint.dataset.image_size
    try:
        channels = _channels(small.model, checkpoint)
        form = forms.form_of(small.model, checkpoint.arch, checkpoint.cfg, classes, side, channels)
    except Misdeclared as fault:
        if small.whole is None:  # nothing was cut, so the error is in the code, not in the file
            raise
        raise UserError(f"the weights do not fit the network: {fault}", _OTHER_ARCH, BAD_CHECKPOINT) from fault
    if checkpoint.format == "foreign":
        forms.check_again(form, lambda: _narrow(_plain(checkpoint, arch), checkpoint).model, checkpoint.arch)
    if small.whole is not None:
        form.captured.whole = small.whole
    return form


def check_arch(own: str, arch: str | None, what: str) -> None:
    """Refuse an --arch that contradicts the file, and a file that needs the user's code without --arch.

    A file alone never causes an import.

    Args:
        own: the network of the file.
        arch: the value of --arch.
        what: the content of the file, for the error about the user's code.

    Raises:
        UserError: for both (exit 2).
    """
    if arch not in (None, own):
        hint = f"if you trust that module, give --arch {own}" if is_users_code(own) else "leave --arch out"
        raise UserError(f"the file holds {own}, but --arch is {arch}", hint)
    if is_users_code(own) and arch is None:
        raise UserError(f"the file holds {what}", f"if you trust that module, add --arch {own}")


def _plain(checkpoint: Checkpoint, arch: str | None) -> nn.Module:
    own, cfg = checkpoint.arch, checkpoint.cfg
    check_arch(own, arch, f"a network of {own}, which is code outside this toolkit")
    try:
        needed = size(own, cfg, **checkpoint.arch_args) if cfg else None
        stored = sum({t.data_ptr(): t.numel() for t in checkpoint.state_dict.values()}.values())  # each tensor once
        if needed is not None and needed > (2 * stored + 1000) * _shrunk(checkpoint):
            raise ValueError(f"cfg {cfg} needs {needed:,} parameters, but the file holds {stored:,} numbers")
        return registry.build(own, cfg or None, **checkpoint.arch_args)
    except Misdeclared:  # the error is in the code, not in the file
        raise
    except (UserError, TypeError, ValueError, RuntimeError, OverflowError) as fault:
        raise UserError(f"the network cannot be built: {fault}", "make the file again", BAD_CHECKPOINT) from fault


def _shrunk(checkpoint: Checkpoint) -> int:
    """Return by which factor a file may hold fewer numbers than its cfg needs.

    A pruned network of this toolkit has a new cfg, so the factor is 1. In another pruned network, keeping 1 % of the
    channels of two layers keeps 0.01 % of the weights between them.
    """
    return 10_000 if prunings(checkpoint.history) and checkpoint.arch not in registry.NETWORKS else 1


def plain(checkpoint: Checkpoint, arch: str | None = None) -> nn.Module:
    """Build the network of a checkpoint as its code makes it, with fresh weights and layers of the file's sizes."""
    return _narrow(_plain(checkpoint, arch), checkpoint).model


def _channels(network: nn.Module, checkpoint: Checkpoint) -> int:
    """Return the channels of the pictures: the file's, or, if its data set is unknown, those that the network reads."""
    from models.graph.capture.form import reads

    data = checkpoint.dataset
    if data.known or not is_users_code(checkpoint.arch):
        return data.channels
    with user_code.running(checkpoint.arch):
        return reads(network, data.image_size, checkpoint.arch)


def _narrow(network: nn.Module, checkpoint: Checkpoint) -> Stored:
    """Narrow a network to the file's tensors; a network of this toolkit has the file's cfg already."""
    from models.graph.surgery.resize import NotLegal
    from models.graph.surgery.stored import Stored, as_stored

    if checkpoint.arch in registry.NETWORKS:
        return Stored(network)
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.state_dict.items()}
    own = network.state_dict().keys()  # a tensor of the code's own may be called codes, too
    merged = {
        name: f"{name.removesuffix('.codes')}.weight" for name in shapes if name.endswith(".codes") and name not in own
    }
    stored = {merged.get(name, name): shape for name, shape in shapes.items()}
    side = checkpoint.dataset.image_size
    try:
        with user_code.running(checkpoint.arch):
            channels = _channels(network, checkpoint)
            return as_stored(network, (channels, side, side), checkpoint.arch, stored)
    except NotLegal as fault:
        raise UserError(f"the weights do not fit the network: {fault}", _OTHER_ARCH, BAD_CHECKPOINT) from fault


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], arch: str | None = None) -> None:
    """Load weights strictly, with a readable error.

    Args:
        arch: the name that `model` was built by, for a hint if the weights look like another network's.

    Raises:
        UserError: if keys, shapes or types differ, with at most five names (exit 3).
    """
    own = model.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in state]
    wrong += [f"{k} is unknown" for k in state if k not in own]
    wrong += [
        f"{k} has shape {tuple(state[k].shape)}, not {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    wrong += [
        f"{k} is {state[k].dtype}, not {own[k].dtype}"
        for k in own
        if k in state and state[k].is_floating_point() != own[k].is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(
            f"the weights do not fit the network: {'; '.join(wrong[:5])}{more}",
            legacy.other(state, arch),
            BAD_CHECKPOINT,
        )
    model.load_state_dict(state)
