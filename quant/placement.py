"""The places of quantizers in a network: first and last layers, float layers, inputs that are sums or not negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from engine.cli.patterns import named
from engine.errors import UserError
from models.graph.calls import packet, source, values
from models.graph.flow import (
    LAYER_CALLS,
    first_layers,
    last_layers,
    module,
    never_negative,
    other_names,
    places,
    read_apart,
    unscaled,
)
from models.graph.normal import NormalForm
from quant.rewire import PADS
from quant.spec import QuantSpec

aten = torch.ops.aten
_PADS = PADS | {aten.reflection_pad2d, aten.replication_pad2d}
_SIDES = 4
"""Numbers of a pad of rows and columns; more would add channels."""
_COPIES = {aten.clone, aten.detach, aten.alias, aten.contiguous}


def meet(
    spec: QuantSpec, model: NormalForm, keep_float: Sequence[str] = (), mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> QuantSpec:  # fmt: skip
    """Resolve a spec for a network: add the exceptions for its first and last layers and for --keep_float.

    The last layers of a detector stay float: with 8 bits, boxes would be off by pixels, and scores as small as 0.01
    count.

    Args:
        keep_float: names of convolutions and linear layers, or fnmatch patterns.
        mean, std: of the picture's channels; without them, int8 ends read the picture's floats.

    Raises:
        UserError: exit 2 if a pattern matches no layer, or no layer is left to quantize.
    """
    layers = [*quantizable(model)]
    kept = named("--keep_float", keep_float, layers, other_names(model, layers))
    first, last = ([name for name in ends if name in layers] for ends in (first_layers(model), last_layers(model)))
    spec = spec.at_ends(first, last, reads_sums(model))
    boxes = last if model.captured.detector is not None else []
    spec = replace(spec, exceptions=tuple(dict.fromkeys((*spec.exceptions, *boxes, *kept))))
    if spec.coded_ends:
        coded = tuple(name for name in spec.coded_ends if name not in spec.kept)
        spec = replace(spec, coded_ends=coded, pixels=(tuple(mean), tuple(std)))
    ends = spec.coded_ends if spec.least_sparing.ends == "float" else ()  # of affine codes all layers are quantized
    if {*spec.exceptions, *ends} >= {*layers}:
        if kept:
            raise UserError("--keep_float leaves no layer to quantize", "keep fewer layers in float")
        hint = "choose another quantizer"
        if any(packet(node) in LAYER_CALLS for node in model.captured.graph.nodes):
            hint = (
                "its code computes weights; make plain ones of them: torch.nn.utils.parametrize.remove_parametrizations"
            )
        raise UserError("no layer between the first and the last one can be quantized", hint)
    return spec


def quantizable(model: NormalForm) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the layers that can be quantized, by name: those that run and whose weight has no other reader."""
    apart = read_apart(model)
    layers = {name: model.get_submodule(name) for name in places(model) if name not in apart}
    return {name: layer for name, layer in layers.items() if isinstance(layer, (nn.Conv2d, nn.Linear))}


def reads_picture(model: NormalForm) -> set[str]:
    """Return the convolutions that read the picture itself, padded or not, as the data set normalises it."""
    found = {name: calls for name, calls in places(model).items() if isinstance(model.get_submodule(name), nn.Conv2d)}
    return {name for name, calls in found.items() if all(_is_picture(model, source(node)) for node in calls)}


def _is_picture(model: NormalForm, node: fx.Node) -> bool:
    """Return whether a value is the picture with all its channels, padded or not."""
    while packet(node) in (*_PADS, *_COPIES) or isinstance(module(model, node), nn.Identity):
        if packet(node) in _PADS and len(values(node).get("pad", ())) > _SIDES:
            return False
        node = source(node)
    return node.op == "placeholder"


def reads_sums(model: NormalForm) -> list[str]:
    """Return the layers that read another layer's sums with no norm between, such as the second of a depthwise pair."""
    plain = unscaled(model)
    return [name for name in quantizable(model) if any(node.args[0] in plain for node in places(model)[name])]


def may_be_negative(model: NormalForm) -> list[str]:
    """Return the layers whose input may be negative, for lack of a ReLU or similar before them."""
    known = rectified_layers(model)
    return [name for name in quantizable(model) if name not in known]


def rectified_layers(model: NormalForm) -> set[str]:
    """Return the layers whose input is never negative, for example the output of a ReLU."""
    positive = never_negative(model)
    return {name for name, calls in places(model).items() if all(node.args[0] in positive for node in calls)}
