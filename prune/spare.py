"""Layers that --spare keeps whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from torch.nn.modules.conv import _ConvNd

from engine.cli.patterns import named
from engine.errors import UserError
from models.graph.channels.classes import Channels
from models.graph.flow import other_names
from models.graph.normal import NormalForm


def spared(form: NormalForm, found: Channels, patterns: Sequence[str]) -> Channels:
    """Return the classes of channels with the outputs of the named layers fixed. Earlier reasons stay.

    Args:
        patterns: names of convolutions and linear layers, or fnmatch patterns.

    Raises:
        UserError: exit 2 if a pattern matches no layer, or no channel is left to cut.
    """
    layers = {
        name: layer
        for name, layer in form.named_modules(remove_duplicate=False)
        if isinstance(layer, (_ConvNd, nn.Linear))
    }
    held = dict(form.named_parameters())
    chosen = named("--spare", patterns, list(layers), other_names(form, layers))
    weights = {id(layers[name].weight) for name in chosen}
    its = {cls for p in found.places if p.rows and id(held.get(p.tensor)) in weights for cls in p.classes.tolist()}
    fixed = {**dict.fromkeys(sorted(its), "spared"), **found.fixed}
    made = {cls for place in found.places if place.makes for cls in place.classes.tolist()}
    if patterns and fixed.keys() >= made:
        raise UserError("--spare leaves no channel to cut", "spare fewer layers")
    return replace(found, fixed=fixed)
