"""merge(model): a copy without batch norms that computes the same, with weights as codes and scales.

There are two folds (algebra in models/layers/fold.py). The ordinary one changes scale and bias. If binary activations
follow, the other one changes only the bias. The original's binary fold is correct only for gamma = 1.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.errors import BAD_CHECKPOINT, UserError
from models.graph.chains import Chain, chains, read_by_sign
from models.graph.flow import places
from models.graph.normal import NormalForm
from models.layers import fold
from models.layers.bnfold import BNFoldConv2d
from models.layers.conv_q import QuantConv2d, QuantLinear, combined
from models.layers.quantizers import promises
from models.layers.quantizers.identity import Identity
from quant.placement import quantizable


@torch.no_grad()
def merge(model: NormalForm) -> NormalForm:
    """Fold the batch norms of a copy of a float, quantized, pruned or grouped network. Its number type is kept.

    A batch norm that does not directly follow one convolution or linear layer stays; chains.unfolded lists these. The
    copy is in eval mode: a network in training is merged as it computes in evaluation.

    Raises:
        UserError: exit 3 if the network is already merged, or for a layer whose input has no fixed scale.
    """
    if any(isinstance(module, (fold.MergedConv2d, fold.MergedLinear)) for module in model.modules()):
        raise UserError("the network is already merged", "merge the network that it was made from", BAD_CHECKPOINT)
    model = copy.deepcopy(model).eval()
    for name in places(model):
        quantizer = getattr(model.get_submodule(name), "input_quantizer", None)
        if quantizer is not None and (fault := promises.fault_of_scale(quantizer)):
            raise UserError(f"{name}: {fault}", promises.HINT, BAD_CHECKPOINT)
    before_sign = read_by_sign(model)  # BNs of which only the output's sign is read
    layers = quantizable(model)
    for chain in chains(model):
        if chain.layer in layers:
            _fold(model, chain, chain.norm in before_sign)
    for name in places(model):  # quantized layers without a batch norm
        layer = model.get_submodule(name)
        if isinstance(layer, (QuantConv2d, QuantLinear)):
            codes, scale, bias = _codes_scale_bias(layer)
            model.replace(name, _merged_layer(layer, codes, scale, bias))
    return model.eval()  # again, because the new layers start in training mode


def _codes_scale_bias(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes (out, ...), positive scale (out,) and bias (out,) of a layer in eval mode.

    The scale includes the scale of the input.
    """
    weight = layer.weight.detach()
    if isinstance(layer, BNFoldConv2d):
        codes, scale = layer.weight_codes()
        return codes, _output_scale(layer, codes, scale), layer.folded_bias()
    bias = layer.bias.detach() if layer.bias is not None else weight.new_zeros(len(weight))
    if not isinstance(layer, (QuantConv2d, QuantLinear)):
        return weight, weight.new_ones(len(weight)), bias
    codes, scale = layer.weight_codes()
    return codes, _output_scale(layer, codes, scale), bias


def _output_scale(layer: QuantConv2d | QuantLinear, codes: Tensor, scale: Tensor | None) -> Tensor:
    """Return the scale of the output, (out,): the weight's times the input's."""
    scale = combined(layer.input_quantizer(codes.new_zeros(1, 1)).scale, scale)
    return codes.new_ones(len(codes)) if scale is None else scale.flatten().expand(len(codes)).clone()


def _merged_layer(layer: nn.Conv2d | nn.Linear, codes: Tensor, scale: Tensor | None, bias: Tensor) -> nn.Module:
    """Return the merged layer. Float weights are multiplied by their scale; quantized ones keep it apart."""
    quantizer = getattr(layer, "input_quantizer", None)
    bits = getattr(layer, "weight_bits", 32)
    if bits == 32:
        if scale is not None:
            codes = codes * scale.reshape(-1, *(1,) * (codes.ndim - 1))
        codes, scale = codes.clone(), None
    else:
        codes = fold.stored(codes)
    return fold.merged(layer, codes, scale, bias, bits, quantizer)


def _fold(model: NormalForm, chain: Chain, before_sign: bool) -> None:
    """Fold the batch norm of a chain into its layer, in place."""
    layer, norm = model.get_submodule(chain.layer), cast(_BatchNorm, model.get_submodule(chain.norm))
    if isinstance(layer, BNFoldConv2d):  # already folded in training
        model.replace(chain.layer, _merged_layer(layer, *_codes_scale_bias(layer)))
        model.replace(chain.norm, nn.Identity())
        return
    layer, bn, pooled = cast("nn.Conv2d | nn.Linear", layer), fold.in_eval(norm), chain.pool is not None
    codes, scale, bias = _codes_scale_bias(layer)
    if before_sign:
        kept = fold.threshold(bn, scale, bias, _largest_sum(layer, codes))
        flip, scale_out, bias_out = kept.flip, None, kept.bias
    else:
        flip = torch.where(bn.multiplier < 0, -1.0, 1.0).to(scale.dtype) if pooled else torch.ones_like(scale)
        multiplier = bn.multiplier * flip
        scale_out, bias_out = scale * multiplier, bias * multiplier + bn.shift * flip
    rest: nn.Module = nn.Identity()
    if pooled:  # max(-z) is not -max(z): the sign changes after the pool
        bias_out = bias_out * flip if before_sign else bias_out
        rest = fold.Flip(flip) if (flip < 0).any() else rest
    elif before_sign:
        codes = codes * flip.reshape(-1, *(1,) * (codes.ndim - 1))
    model.replace(chain.norm, rest)
    model.replace(chain.layer, _merged_layer(layer, codes, scale_out, bias_out))


def _largest_sum(layer: nn.Conv2d | nn.Linear, codes: Tensor) -> Tensor:
    """Return a bound of |sum of input codes times codes| for each filter. Float inputs get a factor of 1e6."""
    quantizer = getattr(layer, "input_quantizer", Identity())
    largest = 2.0**quantizer.bits if quantizer.bits <= 8 else 1e6
    return codes.abs().flatten(1).sum(1) * largest
