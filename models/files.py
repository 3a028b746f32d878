"""Networks of checkpoint files: build float and pruned ones again and load their weights."""

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
from models.forms import build as build, channels as channels  # one door for what commands need: see start.Library
from models.registry import size

if TYPE_CHECKING:
    from models.graph.normal import NormalForm
    from models.graph.surgery.stored import Stored


_OTHER_ARCH = "was it made with another --arch?"


@dataclass(frozen=True)
class Opened:
    """A file and the network in it.

    Args:
        restore: makes the network once more; `checkpoint` and `arch` are those of `models.files.restore`.
    """

    path: Path
    checkpoint: Checkpoint
    network: NormalForm
    restore: Callable[[Checkpoint], NormalForm]

    def at(self, side: int) -> Opened:
        """The same for pictures of this side: a network that was captured for others is captured again.

        Raises:
            UserError: where it cannot read such pictures.
        """
        if side == self.checkpoint.dataset.image_size:
            return self
        other = replace(self.checkpoint, dataset=replace(self.checkpoint.dataset, image_size=side))
        return replace(self, network=self.restore(other))


def read(path: Path, said: Description | None = None) -> Checkpoint:
    """The checkpoint of a file, of this toolkit or of the original; its bytes are read once.

    Args:
        said: what flags say of a state_dict that describes nothing, see weights.described.

    Raises:
        UserError: exit 3 for a file that cannot be used.
    """
    found = load(path)
    return weights.described(found, path, said) if said else legacy.adopt(found, path)


def open(path: Path, arch: str | None = None, said: Description | None = None) -> Opened:
    """Read a float or pruned file and rebuild its network. Files of every kind: quant.restore.open.

    Args:
        arch: what --arch says, as in `restore`.
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
        arch: what --arch says. Must be given for a network of the user's: a file alone never causes an import.

    Raises:
        UserError: exit 3 for quantized or merged files, other names or shapes, exit 2 for another --arch.
    """
    if late := [stage.name for stage in checkpoint.history if isinstance(stage, (Quantize, Calibrate, Merge))]:
        raise UserError(
            f"the file holds a network after stage '{late[0]}'; a float one is needed here",
            "start from the float or pruned file it was made from; to judge this one: "
            + called("quant.wqaq --evaluate F"),
            BAD_CHECKPOINT,
        )
    model = rebuild(checkpoint, arch)
    load_weights(model, checkpoint.state_dict, checkpoint.arch)
    return model


def rebuild(checkpoint: Checkpoint, arch: str | None = None) -> NormalForm:
    """The network of a checkpoint, with fresh weights, as narrow as the file's tensors say."""
    small = _narrow(_plain(checkpoint, arch), checkpoint)
    classes, side = checkpoint.classes, checkpoint.dataset.image_size
    try:
        channels = _channels(small.model, checkpoint)
        form = forms.form_of(small.model, checkpoint.arch, checkpoint.cfg, classes, side, channels)
    except Misdeclared as fault:
        if small.whole is None:  # nothing was cut: the code is at fault, not the file
            raise
        raise UserError(f"the weights do not fit the network: {fault}", _OTHER_ARCH, BAD_CHECKPOINT) from fault
    if small.whole is not None:
        form.captured.whole = small.whole
    return form


def check_arch(own: str, arch: str | None, what: str) -> None:
    """Refuse another network than a file's, and code of the user's that --arch does not name: a file alone never causes an import.

    Args:
        own: the network of the file.
        arch: what --arch says.
        what: the file holds, if it is the user's code.

    Raises:
        UserError: exit 2.
    """
    if arch not in (None, own):
        hint = f"if you trust that module, say --arch {own}" if is_users_code(own) else "leave --arch out"
        raise UserError(f"the file holds {own}, --arch says {arch}", hint)
    if is_users_code(own) and arch is None:
        raise UserError(f"the file holds {what}", f"if you trust that module, add --arch {own}")


def _plain(checkpoint: Checkpoint, arch: str | None) -> nn.Module:
    own, cfg = checkpoint.arch, checkpoint.cfg
    check_arch(own, arch, f"a network of {own}, which is code outside this toolkit")
    try:
        needed = size(own, cfg, **checkpoint.arch_args) if cfg else None
        stored = sum(t.numel() for t in checkpoint.state_dict.values())
        if needed is not None and needed > (2 * stored + 1000) * _shrunk(checkpoint):
            raise ValueError(f"cfg {cfg} asks for {needed:,} parameters, the file holds {stored:,} numbers")
        return registry.build(own, cfg or None, **checkpoint.arch_args)
    except Misdeclared:  # the code is at fault, not the file
        raise
    except (UserError, TypeError, ValueError, RuntimeError, OverflowError) as fault:
        raise UserError(f"the network cannot be built: {fault}", "make the file again", BAD_CHECKPOINT) from fault


def _shrunk(checkpoint: Checkpoint) -> int:
    """How many times fewer numbers than its cfg asks for a file may hold: ours has a cfg of its own after pruning.

    To leave 1 % of the channels of two layers leaves 0.01 % of the weights between them.
    """
    return 10_000 if prunings(checkpoint.history) and checkpoint.arch not in registry.NETWORKS else 1


def plain(checkpoint: Checkpoint, arch: str | None = None) -> nn.Module:
    """The network of a checkpoint as its code makes it, with layers of the file's sizes and fresh weights."""
    return _narrow(_plain(checkpoint, arch), checkpoint).model


def _channels(network: nn.Module, checkpoint: Checkpoint) -> int:
    """Of the pictures: as the file says; of one that does not know its data set, as the network reads them."""
    from models.graph.capture.form import reads

    data = checkpoint.dataset
    if data.known or not is_users_code(checkpoint.arch):
        return data.channels
    with user_code.running(checkpoint.arch):
        return reads(network, data.image_size, checkpoint.arch)


def _narrow(network: nn.Module, checkpoint: Checkpoint) -> Stored:
    """A network as narrow as the file's tensors; one of ours is so by its cfg, and other shapes do not fit it."""
    from models.graph.surgery.resize import NotLegal
    from models.graph.surgery.stored import Stored, as_stored

    if checkpoint.arch in registry.NETWORKS:
        return Stored(network)
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.state_dict.items()}
    stored = {name.removesuffix(".codes") + ".weight" * name.endswith(".codes"): shapes[name] for name in shapes}
    side = checkpoint.dataset.image_size
    try:
        with user_code.running(checkpoint.arch):
            channels = _channels(network, checkpoint)
            return as_stored(network, (channels, side, side), checkpoint.arch, stored)
    except NotLegal as fault:
        raise UserError(f"the weights do not fit the network: {fault}", _OTHER_ARCH, BAD_CHECKPOINT) from fault


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], arch: str | None = None) -> None:
    """Strict load with a message a person can use.

    Args:
        arch: the name that `model` was built by, so that weights of another network can be told by their shapes.

    Raises:
        UserError: exit 3, with at most five names.
    """
    own = model.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in state]
    wrong += [f"{k} is not known" for k in state if k not in own]
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
