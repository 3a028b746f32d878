"""What the page shows of a checkpoint: its layers, counted in the network itself, its curve and its commands."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import prunings
from engine.errors import UserError
from models import check, cost, registry
from models.files import Opened
from scripts import methods
from scripts.page import past
from scripts.page.entry import Entry, Layer
from scripts.table import ResultRow


def entry(opened: Opened, row: ResultRow, known: past.Known) -> Entry:
    """Return what the page shows of a file.

    Args:
        known: the files that were read before; this one is added.
    """
    path, checkpoint = opened.path, opened.checkpoint
    before, no_before = _before(checkpoint)
    curve, no_curve = past.curve(path, checkpoint)
    return Entry(
        name=path.stem,
        row=row,
        method=methods.of_checkpoint(checkpoint),
        network=checkpoint.arch,
        layers=tuple(_layers(opened, before)),
        no_before=no_before,
        curve=curve,
        no_curve=no_curve,
        provenance=past.told(*past.ancestors(path, checkpoint, known)),
    )


def _layers(opened: Opened, whole: dict[str, int] | None) -> Iterator[Layer]:
    modules = dict(opened.network.named_modules())
    seen = set[str]()
    for counted in cost.layers(opened.network, opened.checkpoint.dataset.image_size):
        module = modules.get(counted.name)
        kept = _channels(module)
        if kept is None or counted.name in seen:  # a layer that runs twice is one layer
            continue
        seen.add(counted.name)
        yield Layer(
            counted.name,
            kept,
            kept if whole is None else whole.get(counted.name),
            counted.weight_bits,
            getattr(getattr(module, "input_quantizer", None), "bits", 32),
            counted.macs,
        )


def _before(checkpoint: Checkpoint) -> tuple[dict[str, int] | None, str]:
    """Return each layer's channels before the first pruning, None where nothing was pruned, and why they are not known."""
    pruned = prunings(checkpoint.history)
    if not pruned:
        return None, ""
    cfg = list(pruned[0].cfg_before) if checkpoint.arch in registry.NETWORKS else None
    try:
        network = registry.outline(checkpoint.arch, cfg, **checkpoint.arch_args)
        found = {name: _channels(module) for name, module in network.named_modules()}
    except (Exception, SystemExit) as fault:  # the user's code may raise anything
        return {}, str(fault) if isinstance(fault, UserError) else check.one_line(fault)
    return {name: channels for name, channels in found.items() if channels is not None}, ""


def _channels(module: nn.Module | None) -> int | None:
    """Return the outputs of a convolution or linear layer; None for any other module."""
    for name in ("out_channels", "out_features"):
        if isinstance(found := getattr(module, name, None), int):
            return found
    return None
