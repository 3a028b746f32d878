"""Capture: turn any module into its normal form and check that both are equal bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from engine.errors import no_memory
from engine.numerics import random_state, trials
from engine.system.messages import notice, some
from models.check import Misdeclared, as_misdeclared
from models.graph.capture import unheld
from models.graph.capture.build import build
from models.graph.capture.export import exported
from models.graph.capture.measured import measure_sizes
from models.graph.capture.training import compare
from models.graph.frozen_norm import as_norms
from models.graph.normal import NormalForm, Size, pictures

CHECKED = 2
"""Pictures of the comparisons: another number than in the export."""

ROUNDING = 1e-3
"""The largest difference that counts as rounding, as a share of the largest answer."""
CHANNELS = (3, 1)
"""The channels of pictures, tried in this order: colour, grey."""


def capture(model: nn.Module, picture: Size, arch: str, check: bool = True) -> NormalForm:
    """Return the normal form of a network, in eval mode, with the same parameters and buffers (not copies).

    Args:
        picture: the size that it will read.
        arch: its name in messages.
        check: run both and compare them, also in training and in their gradients; a notice names modules that only
            training runs. False is for networks that are known or compared elsewhere.

    Raises:
        Misdeclared: exit 2 for a network that cannot be captured, answers differently each time, does not return
            exactly one tensor, changes a parameter or buffer in evaluation, has a backward of its own, or uses a
            parameter that it does not hold.
    """
    fit_to(model, picture)
    with as_norms(model):
        return _capture(model, picture, arch, check)


def _capture(model: nn.Module, picture: Size, arch: str, check: bool) -> NormalForm:
    x = _made_up(model, picture)
    model.eval()
    if not check:
        return _built(model, arch, x).eval()
    hint = f"let its code run on pictures of {'x'.join(map(str, picture))}, or give another --image_size"
    with trials.kept(model) as before:
        with as_misdeclared(arch, hint):  # with gradients: without them, attention takes another path
            first, second = (_output(model(x.clone()), arch) for _ in range(2))
        _refuse_changes(model, before, arch)
    unheld.check(model, first, arch)
    first, second = first.detach(), second.detach()
    if not trials.same(first, second):
        raise Misdeclared(f"--arch {arch}: the network answers differently each time in evaluation", _RANDOM)
    form = _built(model, arch, x)
    form.eval()
    for own in [form(x.clone()).detach() for _ in range(2)]:  # the second run detects changes by the first
        if trials.same(first, own):
            continue
        raise Misdeclared(
            f"--arch {arch}: the outputs of its captured graph differ by {(first - own).abs().max().item():.2g}",
            "let its output depend only on pictures and parameters, not on a global state",
        )
    compare(model, form, x, arch)
    _say_what_mixes(model, first, x, arch)
    return form


def _refuse_changes(model: nn.Module, before: dict[str, Tensor], arch: str) -> None:
    """Refuse code that changes its parameters in evaluation: a graph would lose it without a difference in its answers."""
    parameters = dict(model.named_parameters())
    if found := [name for name in trials.changed(model, before) if name in parameters]:
        raise Misdeclared(
            f"--arch {arch}: evaluation changes its parameter{'s' * (len(found) > 1)} {some(found)}",
            "compute with the limited weight without storing it, F.conv2d(x, limited(self.weight)), or by "
            "torch.nn.utils.parametrize",
        )


def _say_what_mixes(model: nn.Module, together: Tensor, x: Tensor, arch: str) -> None:
    """Print to stderr that a picture's answer depends on the other pictures, such as by batch norms without statistics."""
    if len(together) != len(x):
        return
    try:
        with trials.kept(model):
            alone = _output(model(x[:1].clone()), arch).detach()
    except (Exception, SystemExit) as fault:  # its code may need two pictures, where its graph does not
        if no_memory(fault):
            raise
        return
    if alone.shape == together[:1].shape and (alone - together[:1]).abs().max() > ROUNDING * together.abs().max():
        norms = [n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is None]
        notice(
            f"{arch}: the answer for a picture depends on the other pictures of its batch, so accuracy depends on "
            "--eval_batch_size" + (f"; these batch norms keep no statistics: {some(norms)}" if norms else "")
        )


def fit_to(model: nn.Module, picture: Size) -> None:
    """Set the size of pictures in a network that needs to know it, such as the core of a detector."""
    if callable(told := getattr(model, "fit_to", None)):
        told(picture)


def _built(model: nn.Module, arch: str, x: Tensor) -> NormalForm:
    channels, high, wide = x.shape[1:]
    form = build(model, exported(model, arch, x), (channels, high, wide), arch)
    form.captured.detector = getattr(model, "shell", None)
    measure_sizes(form)
    return form


def reads(model: nn.Module, side: int, arch: str) -> int:
    """Return the channels of the pictures that a network reads: 3 if it runs on colour, else 1 if it runs on grey.

    The result is 3 for a network that runs on neither; `capture` then reports why.

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
                f"--arch {arch}: {name} reads {wanted} channels, pictures have 3, or 1 in grey",
                "let the first layer read 3 channels, or 1",
            )
    return read or CHANNELS[0]


@torch.no_grad()
def answers(model: nn.Module, picture: Size, shape: tuple[int | None, ...] | None = None) -> bool:
    """Return whether a network runs on pictures of a size in eval mode. Its buffers are restored.

    Args:
        shape: the required shape of its one output, with None for the number of pictures; None accepts any output.
    """
    x = _made_up(model, picture)
    try:
        fit_to(model, picture)
        with trials.kept(model), random_state.kept():
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


_RANDOM = "give F.dropout training=self.training, and draw no random numbers in evaluation"


def _output(found: Any, arch: str) -> Tensor:
    """Return the one tensor of an output.

    Raises:
        Misdeclared: exit 2 for none or several tensors, or for integers.
    """
    leaves = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
    if len(leaves) != 1:
        raise Misdeclared(
            f"--arch {arch}: in evaluation it returns {len(leaves)} tensors, not one",
            "let forward return only the scores; for a detector, name its trained modules: --core backbone,head",
        )
    if not leaves[0].is_floating_point():
        dtype = str(leaves[0].dtype).removeprefix("torch.")
        raise Misdeclared(
            f"--arch {arch}: in evaluation it returns {dtype}, not floats", "let forward return the scores"
        )
    return leaves[0]
