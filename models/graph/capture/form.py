"""Capture: any module becomes its normal form, equal bit for bit and checked to be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from engine.errors import no_memory
from engine.system.said import notice, some
from models.check import Misdeclared, one_line, user_code
from models.graph.capture.build import build
from models.graph.capture.export import exported
from models.graph.capture.frozen import as_norms
from models.graph.normal import NormalForm, Size, pictures

CHECKED = 2
"""Pictures of the comparisons: not as many as in the export."""

CHANNELS = (3, 1)
"""What a network may read, tried in this order: colours, gray."""


def capture(model: nn.Module, picture: Size, arch: str, check: bool = True) -> NormalForm:
    """The normal form of a network, in evaluation mode, with the same parameters and buffers (not copies).

    Args:
        picture: size of what it is to read.
        arch: what messages call it.
        check: run both and compare, in training, too; a notice names modules that only training runs. Without it nothing
            is run: for networks whose answers are known or compared elsewhere.

    Raises:
        Misdeclared: exit 2 for a network that cannot be captured, answers differently each time, gives several
            outputs or none, or changes a buffer in evaluation.
    """
    fit_to(model, picture)
    with as_norms(model):
        return _capture(model, picture, arch, check)


def _capture(model: nn.Module, picture: Size, arch: str, check: bool) -> NormalForm:
    x = _made_up(model, picture)
    model.eval()
    if not check:
        return _built(model, arch, x).eval()
    hint = f"it is shown pictures of {'x'.join(map(str, picture))}"
    with _buffers_kept(model), user_code(arch, hint):  # with gradients: without, attention takes a path of its own
        first, second = (_output(model(x.clone()), arch) for _ in range(2))
    if not _same(first, second):
        raise Misdeclared(f"--arch {arch}: the network answers differently each time in evaluation", _RANDOM)
    form = _built(model, arch, x)
    form.eval()
    for own in [form(x.clone()).detach() for _ in range(2)]:  # the second shows what a run leaves behind
        if _same(first, own):
            continue
        raise Misdeclared(
            f"--arch {arch}: its captured graph gives other answers: by {(first - own).abs().max().item():.2g}",
            "it may change a global state, or depend on something besides pictures and parameters",
        )
    _compare_training(model, form, x, arch)
    return form


def fit_to(model: nn.Module, picture: Size) -> None:
    """Tell a network that is made for pictures of one size which that is: the core of a detector."""
    if callable(told := getattr(model, "fit_to", None)):
        told(picture)


def _built(model: nn.Module, arch: str, x: Tensor) -> NormalForm:
    channels, high, wide = x.shape[1:]
    form = build(model, exported(model, arch, x), (channels, high, wide), arch)
    form.captured.detector = getattr(model, "shell", None)
    return form


def reads(model: nn.Module, side: int, arch: str) -> int:
    """How many channels the pictures have to have: 3 if the network runs on such, else 1 if it runs on gray ones.

    `capture` says why a network runs on neither.

    Raises:
        Misdeclared: exit 2 if the first convolution that runs expects another number of channels.
    """
    found: list[tuple[str, int, int]] = []

    def note(name: str) -> Any:
        return lambda module, given: found.append((name, module.in_channels, given[0].shape[1]))

    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, _ConvNd)]
    handles = [module.register_forward_pre_hook(note(name)) for name, module in convolutions]
    try:
        read = next((channels for channels in CHANNELS if answers(model, (channels, side, side))), None)
    finally:
        for handle in handles:
            handle.remove()
    if read is None and found:
        name, wanted, given = found[0]
        if wanted not in (given, *CHANNELS):
            raise Misdeclared(
                f"--arch {arch}: {name} reads {wanted} channels, pictures have 3, or 1 in gray",
                "let the first layer read as many",
            )
    return read or CHANNELS[0]


@torch.no_grad()
def answers(model: nn.Module, picture: Size, shape: tuple[int | None, ...] | None = None) -> bool:
    """Whether a network takes a few pictures of a size, in evaluation mode, with nothing of it changed.

    Args:
        shape: of the one tensor that it has to give, None for the number of pictures; None: whatever it gives.
    """
    x = _made_up(model, picture)
    try:
        fit_to(model, picture)
        with _buffers_kept(model), torch.random.fork_rng(devices=[]):
            found = model.eval()(x)
    except (Exception, SystemExit) as fault:
        if no_memory(fault):
            raise
        return False
    if shape is None:
        return True
    given = [leaf.shape for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
    return given == [torch.Size(len(x) if size is None else size for size in shape)]


def _made_up(model: nn.Module, picture: Size) -> Tensor:
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    return pictures(picture, CHECKED).to(device, next((p.dtype for p in model.parameters()), torch.float32))


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal bit for bit, NaN to NaN: made-up pictures and weights may overflow."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


_RANDOM = "does it call F.dropout without training=self.training, or draw numbers of its own?"


def _output(found: Any, arch: str) -> Tensor:
    """The one tensor of an output; in evaluation there has to be one."""
    leaves = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
    if len(leaves) != 1:
        raise Misdeclared(
            f"--arch {arch}: in evaluation it gives {len(leaves)} tensors",
            "let forward give one: the scores; of a detector, name the modules that are trained: --core backbone,head",
        )
    return leaves[0].detach()


@contextlib.contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put back what a run of the network has changed of its buffers."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            if name in before:
                buffer.detach().copy_(before[name])


def _compare_training(model: nn.Module, form: NormalForm, x: Tensor, arch: str) -> None:
    """Print a notice if the outputs of the two differ in training mode, or if evaluation leaves a module out."""
    try:
        theirs: Tensor | None = _in_training(model, x)
        why = ""
    except (Exception, SystemExit) as fault:  # it may ask for targets, or for larger pictures
        if no_memory(fault):
            raise
        theirs, why = None, f" (in training its code raises {one_line(fault)})"
    own = _in_training(form, x)
    names, used = form.captured.vanished, set(form.parameters())  # which functions may use, too
    if theirs is None or own is None or not _same(theirs, own):
        alone = f": {some(names)} run in training alone" if names else ""
        notice(
            f"{arch} behaves otherwise in training than in evaluation{alone}{why}; it is trained as it is evaluated "
            "(dropout and batch norm apart)"
        )
    elif held := [name for name in names if any(p not in used for p in model.get_submodule(name).parameters())]:
        notice(f"{arch}: evaluation does not run {some(held)}; what they hold stays in the file and is not trained")


def _in_training(network: nn.Module, x: Tensor) -> Tensor | None:
    """The first tensor of what a network gives in training mode, from one seed; its buffers and mode are put back."""
    with _buffers_kept(network), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.train()
        try:
            found = [leaf for leaf in tree_leaves(network(x.clone())) if isinstance(leaf, Tensor)]
        finally:
            network.eval()
    return found[0].detach() if found else None
