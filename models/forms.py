"""Bring networks into normal form: by name with fresh weights, or from a given module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from engine.cli.archs import is_users_code
from models import check, registry, user_code
from models.fused import view as view  # registers how an evaluation runs a network
from models.graph.normal import picture_of

if TYPE_CHECKING:
    from models.graph.normal import NormalForm


def build(
    arch: str, cfg: Sequence[int] | None = None, classes: int = 10, side: int = 32, **arch_args: Any
) -> NormalForm:
    """Build a network with fresh weights in normal form.

    Args:
        side: side of the input pictures, in pixels.

    Raises:
        UserError: as registry.build, models.graph.capture.form.capture and `check_again`.
    """
    make = partial(registry.build, arch, cfg, classes, **arch_args)
    form = form_of(make(), arch, cfg, classes, side)
    check_again(form, make, arch)
    return form


def check_again(form: NormalForm, make: Callable[[], nn.Module], arch: str) -> None:
    """Check that a second build of a user's network differs from the first only in its state_dict.

    Args:
        make: builds the network.

    Raises:
        UserError: as models.graph.capture.again.check.
    """
    if is_users_code(arch):
        from models.graph.capture import again

        with user_code.running(arch):
            again.check(form, make, arch)


def channels(network: nn.Module) -> int:
    """Return the channels of a network's input: 3, or 1 for grey."""
    return picture_of(network, 1)[0]


def form_of(
    network: nn.Module, arch: str, cfg: Sequence[int] | None, classes: int, side: int, channels: int | None = None
) -> NormalForm:
    """Return the normal form of a network from its code; its parameters share the memory of the network's.

    Args:
        cfg: the widths that it was built with.
        side: side of the input pictures, in pixels.
        channels: channels of the input pictures; None: as `reads` finds.

    Raises:
        UserError: as models.graph.capture.form.capture; for an output that is not (B, classes) (exit 2).
    """
    from models.graph.capture.cache import captured
    from models.graph.capture.form import CHANNELS, reads  # imports the graph code, which --help does not need

    if is_users_code(arch):
        check.values(network, arch)
    with user_code.running(arch):
        channels = channels or (reads(network, side, arch) if is_users_code(arch) else CHANNELS[0])
        form = captured(network, (channels, side, side), arch)
    if arch in registry.FIXED_GROUPS:
        form.captured.whole = frozenset()
    form.cfg = registry.widths(arch, form) or list(cfg or [])
    form.arch_args = dict(getattr(network, "arch_args", {})) if arch in registry.NETWORKS else {}
    if form.captured.detector is None:
        check.answer(form.captured.answer, form.captured.rows, arch, classes)
    if hasattr(network, "channel_groups"):
        check.say_undeclared(arch)
    return form
