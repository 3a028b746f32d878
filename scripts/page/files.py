"""What the page shows of a checkpoint: its layers, counted in the network itself, its curve and its commands."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import prunings
from engine.errors import UserError
from models import cost, registry
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
    curve, no_curve = past.curve(path, checkpoint)
    return Entry(
        name=path.stem,
        row=row,
        method=methods.of_checkpoint(checkpoint),
        network=checkpoint.arch,
        layers=tuple(_layers(opened)),
        curve=curve,
        no_curve=no_curve,
        provenance=past.told(*past.ancestors(path, checkpoint, known)),
    )


def _layers(opened: Opened) -> Iterator[Layer]:
    modules = dict(opened.network.named_modules())
    whole = _before(opened.checkpoint)
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


def _before(checkpoint: Checkpoint) -> dict[str, int] | None:
    """Return each layer's channels before the first pruning; None where nothing was pruned."""
    pruned = prunings(checkpoint.history)
    if not pruned:
        return None
    own = checkpoint.arch in registry.NETWORKS
    try:
        network = registry.build(checkpoint.arch, list(pruned[0].cfg_before) if own else None, **checkpoint.arch_args)
    except (UserError, TypeError, ValueError):
        return {}
    found = {name: _channels(module) for name, module in network.named_modules()}
    return {name: channels for name, channels in found.items() if channels is not None}


def _channels(module: nn.Module | None) -> int | None:
    """Return the outputs of a convolution or linear layer; None for any other module."""
    for name in ("out_channels", "out_features"):
        if isinstance(found := getattr(module, name, None), int):
            return found
    return None
