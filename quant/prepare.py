"""prepare(model, spec): a quantized copy of a float network, with the same names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.errors import UserError
from models.graph.chains import chains
from models.graph.flow import first_layers, is_layer, last_layers
from models.graph.frozen_norm import FrozenNorm
from models.graph.normal import NormalForm
from models.layers.bnfold import BNFoldConv2d, FoldedNorm
from models.layers.conv_q import QuantConv2d, QuantLinear
from models.layers.quantizers import made
from models.layers.quantizers.base import Quantizer
from models.layers.quantizers.pixels import PixelCodes, PixelWeight
from quant.placement import quantizable, reads_picture, rectified_layers
from quant.quantizer_spec import FLOAT, QuantizerSpec
from quant.rewire import leave_out, pool_before_norm, read_before_relu, share_quantizers
from quant.spec import QuantSpec
from quant.sums import BITS, code_sums

if TYPE_CHECKING:
    from quant.old_declarations import Declared


def weight_quantizer(spec: QuantizerSpec, weight: Tensor) -> Quantizer:
    """Return the quantizer module for a weight."""
    return made.weight_quantizer(spec.kind, spec, weight)


def input_quantizer(spec: QuantizerSpec, signed: bool = False) -> Quantizer:
    """Return the quantizer module for a layer's input.

    Args:
        signed: whether the input may be negative.
    """
    return made.input_quantizer(spec.kind, spec, signed)


def prepare(model: NormalForm, spec: QuantSpec, as_declared: Declared | None = None) -> NormalForm:
    """Quantize a copy of `model`. Parameters keep their names, so float weights load into the copy and back.

    Every 2d convolution and linear layer except the exceptions gets a weight and an input quantizer. Layers that read
    one value share the input quantizer. Layers with signed activation codes read the value before a ReLU, because
    sign(relu(x)) is +1 everywhere.

    The arithmetic stays float32 or float64. Other types are refused: sums of codes overflow float16, and bfloat16
    rounds them.

    Args:
        as_declared: declarations that decide instead of the graph, for old files.

    Raises:
        UserError: exit 2 if a name in the spec is no layer, or the weights are neither float32 nor float64.
    """
    model = copy.deepcopy(model)
    layers = quantizable(model)
    known = {n for n, m in model.named_modules() if is_layer(m)}
    named = (*spec.exceptions, *spec.float_inputs, *spec.measured_inputs, *spec.coded_ends)
    unknown = [name for name in named if name not in known]
    if unknown:
        raise UserError(f"no layer is called {unknown[0]}", f"name one of {', '.join(layers)}")
    chosen = {name: layer for name, layer in layers.items() if name not in spec.exceptions}
    if input_quantizer(spec.activation).signed:
        if as_declared:
            leave_out(model, as_declared.unread(chosen))
        else:
            read_before_relu(model, {*chosen} - {*spec.float_inputs, *spec.measured_inputs, *spec.coded_ends})
    if spec.order == "bacp":
        pool_before_norm(model, as_declared.pools if as_declared else None)
    if spec.weight.bits < 32 or spec.activation.bits < 32:
        _quantize(model, chosen, spec, as_declared)
    if spec.bn_fold:
        _fold_in_training(model)
    if spec.bn_momentum is not None:
        for norm in model.modules():
            if isinstance(norm, _BatchNorm):
                norm.momentum = spec.bn_momentum
    return model


def _quantize(
    model: NormalForm, layers: Mapping[str, nn.Conv2d | nn.Linear], spec: QuantSpec, as_declared: Declared | None
) -> None:
    """Replace each of these layers by a quantized one with two quantizers and the same parameters."""
    ends = (as_declared and as_declared.ends) or {*first_layers(model), *last_layers(model)}
    rectified = as_declared.rectified if as_declared else rectified_layers(model)
    rectified = rectified if spec.activation.traits.follows_sign else set()
    shown = reads_picture(model) if spec.pixels[0] else set()
    if shown and len(spec.pixels[0]) != model.captured.picture[0]:
        raise UserError(f"pixels are of {len(spec.pixels[0])} channels", "give one mean and std for each channel")
    coded: dict[str, Any] = {}
    for name, layer in layers.items():
        weights, inputs = _specs(spec, name, name in ends)
        if layer.weight.dtype not in (torch.float32, torch.float64):
            raise UserError(f"{name} has weights of {layer.weight.dtype}", "convert the network first: model.float()")
        weight = weight_quantizer(weights, layer.weight.detach())
        activation = input_quantizer(inputs, signed=name not in rectified)
        if name in shown and name in spec.coded_ends and isinstance(layer, nn.Conv2d):
            weight = PixelWeight(weight, spec.pixels[1], layer.out_channels, layer.groups)
            activation = PixelCodes(*spec.pixels)
        coded[name] = None if inputs.bits == 32 else (inputs, name in rectified)
        for new in (weight, activation):  # move the quantizers' state to the weights' device and type
            new.to(layer.weight.device, layer.weight.dtype)
        if isinstance(layer, nn.Conv2d):
            model.replace(name, QuantConv2d.from_float(layer, weight, activation))
        else:
            model.replace(name, QuantLinear.from_float(layer, weight, activation))
    if spec.sums == "int8":
        inputs = replace(spec.activation, bits=BITS)
        like = next(iter(layers.values())).weight
        for name in code_sums(model, input_quantizer(inputs).to(like.device, like.dtype)):
            coded[name] = (inputs, False)
    if not as_declared:
        share_quantizers(model, coded)


def _specs(spec: QuantSpec, name: str, is_end: bool) -> tuple[QuantizerSpec, QuantizerSpec]:
    """Return a layer's two quantizers, for its weights and for its input."""
    if name in spec.coded_ends:
        return of_coded_end(spec), FLOAT
    weights, inputs = (_at_end(part) if is_end else part for part in (spec.weight, spec.activation))
    if name in spec.measured_inputs:
        inputs = QuantizerSpec("affine", spec.activation.bits)
    return weights, FLOAT if name in spec.float_inputs and name not in spec.measured_inputs else inputs


def of_coded_end(spec: QuantSpec) -> QuantizerSpec:
    """Return the weight quantizer of the layers of `coded_ends`: as deploy.pack stores those that would stay float."""
    return QuantizerSpec("affine", 8, symmetric=True) if spec.least_sparing.ends == "float" else spec.weight


def _at_end(part: QuantizerSpec) -> QuantizerSpec:
    """Return the quantizer of the first and the last layer, if these are quantized."""
    return replace(part, bits=part.traits.end_bits) if part.traits.end_bits else part


def _fold_in_training(model: NormalForm) -> None:
    """Fold batch norms into the quantized convolutions before them. Float convolutions keep their batch norms."""
    for chain in chains(model):
        conv, norm = model.get_submodule(chain.layer), model.get_submodule(chain.norm)
        if (
            chain.pool is None
            and isinstance(conv, QuantConv2d)
            and isinstance(norm, nn.BatchNorm2d)
            and not isinstance(norm, FrozenNorm)
        ):
            folding = BNFoldConv2d.from_float(conv, conv.weight_quantizer, conv.input_quantizer)
            folding.shares_input = conv.shares_input
            folded = FoldedNorm.from_norm(norm)
            model.replace(chain.norm, folded)
            model.replace(chain.layer, folding.attach(folded))
