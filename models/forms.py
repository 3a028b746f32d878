"""The normal form of a network of the toolkit, of a library or of the user's: with fresh weights, or of a module at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from engine.cli.archs import is_users_code
from models import check, registry, user_code
from models.graph.normal import picture_of

if TYPE_CHECKING:
    from models.graph.normal import NormalForm


def build(
    arch: str, cfg: Sequence[int] | None = None, classes: int = 10, side: int = 32, **arch_args: Any
) -> NormalForm:
    """A network with fresh weights.

    Args:
        side: of the pictures that it is to read.

    Raises:
        UserError: as registry.build and models.graph.capture.form.capture.
    """
    return form_of(registry.build(arch, cfg, classes, **arch_args), arch, cfg, classes, side)


def channels(network: nn.Module) -> int:
    """Of the pictures that a network reads: 3, or 1 where they are to be gray."""
    return picture_of(network, 1)[0]


def form_of(
    network: nn.Module, arch: str, cfg: Sequence[int] | None, classes: int, side: int, channels: int | None = None
) -> NormalForm:
    """The normal form of a network as its code makes it, with the very parameters of that.

    Args:
        cfg: the widths that it was built with.
        side, channels: of the pictures that it is to read; channels None: as `reads` finds.

    Raises:
        UserError: as models.graph.capture.form.capture; exit 2 for an answer that is not (B, classes).
    """
    from models.graph.capture.cache import captured
    from models.graph.capture.form import CHANNELS, reads  # loads what walks graphs: `--help` does without

    with user_code.running(arch):
        channels = channels or (reads(network, side, arch) if is_users_code(arch) else CHANNELS[0])
        form = captured(network, (channels, side, side), arch)
    if arch in registry.FIXED_GROUPS:
        form.captured.whole = frozenset()
    form.cfg = registry.widths(arch, form) or list(cfg or [])
    form.arch_args = dict(getattr(network, "arch_args", {})) if arch in registry.NETWORKS else {}
    if form.captured.detector is None:
        check.answer(form.captured.answer, arch, classes)
    if hasattr(network, "channel_groups"):
        check.say_undeclared(arch)
    return form
