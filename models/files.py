"""Networks of checkpoint files: build float and pruned ones again and load their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine.checkpoint.format import Checkpoint, load
from engine.checkpoint.history import Calibrate, Merge, Quantize
from engine.cli.naming import called
from engine.errors import BAD_CHECKPOINT, UserError, prefix_path
from models import legacy
from models.channels import Network
from models.check import Misdeclared
from models.registry import build, size


@dataclass(frozen=True)
class Opened:
    """A file and the network in it."""

    path: Path
    checkpoint: Checkpoint
    network: Network


def read(path: Path) -> Checkpoint:
    """The checkpoint of a file, of this toolkit or of the original; its bytes are read once.

    Raises:
        UserError: exit 3 for a file that cannot be used.
    """
    return legacy.adopt(load(path), path)


def open(path: Path, arch: str | None = None) -> Opened:
    """Read a float or pruned file and rebuild its network. Files of every kind: quant.restore.open.

    Raises:
        UserError: as `read` and `restore`, naming the file.
    """
    checkpoint = read(path)
    with prefix_path(path):
        return Opened(path, checkpoint, restore(checkpoint, arch))


def restore(checkpoint: Checkpoint, arch: str | None = None) -> Network:
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


def rebuild(checkpoint: Checkpoint, arch: str | None = None) -> Network:
    """The network of a checkpoint with fresh weights."""
    own, cfg = checkpoint.arch, checkpoint.cfg
    if arch not in (None, own):
        hint = f"if you trust that module, say --arch {own}" if ":" in own else "leave --arch out"
        raise UserError(f"the file holds {own}, --arch says {arch}", hint)
    if ":" in own and arch is None:
        raise UserError(
            f"the file holds a network of {own}, which is code outside this toolkit",
            f"if you trust that module, add --arch {own}",
        )
    try:
        needed = size(own, cfg, **checkpoint.arch_args)
        stored = sum(t.numel() for t in checkpoint.state_dict.values())
        if needed is not None and needed > 2 * stored + 1000:
            raise ValueError(f"cfg {cfg} asks for {needed:,} parameters, the file holds {stored:,} numbers")
        return build(own, cfg, **checkpoint.arch_args)
    except Misdeclared:  # the code is at fault, not the file
        raise
    except (UserError, TypeError, ValueError, RuntimeError, OverflowError) as fault:
        raise UserError(f"the network cannot be built: {fault}", "make the file again", BAD_CHECKPOINT) from fault


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
            f"the weights do not fit the network: {'; '.join(wrong[:5])}{more}", _other(state, arch), BAD_CHECKPOINT
        )
    model.load_state_dict(state)


def _other(state: dict[str, torch.Tensor], arch: str | None) -> str:
    """The hint for weights that do not fit: the network that they look like, if it is another."""
    try:
        known = legacy.recognise(legacy.renamed(state))
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):  # shapes of no network at all
        known = None
    if known and known[0] != arch:
        return f"they look like those of {known[0]}: --arch {known[0]}?"
    return "was the file made with another --arch or --cfg?"
