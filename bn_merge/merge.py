"""merge(model): a copy without batch norms that computes the same, its weights held as codes and scales.

Two folds (algebra in models/layers/fold.py): the ordinary one into scale and bias, and, where binary
activations follow, one into the bias alone. The original's binary fold is right only for gamma = 1.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import BAD_CHECKPOINT, UserError
from models.blocks import ConvBNAct
from models.channels import Network
from models.layers import fold
from models.layers.bnfold import BNFoldConv2d
from models.layers.conv_q import QuantConv2d, QuantLinear, combined
from models.layers.quantizers.identity import Identity
from quant.prepare import USE_A_WRAPPER, folds, read_by_sign, refuse_captured, replace_child

_HINT = "build the network from models.blocks.ConvBNAct, whose batch norm follows its convolution"


@torch.no_grad()
def merge(model: Network) -> Network:
    """Fold every batch norm of a float, quantized, pruned or grouped network; its arithmetic type is kept.

    What evaluation does is merged, also of a network in training: the copy is in eval mode.

    Raises:
        UserError: exit 3 for a batch norm that follows no convolution of a block, a block with a forward of its own,
            another pool than a max-pool between the two, or a network that is merged already.
    """
    if any(isinstance(module, (fold.MergedConv2d, fold.MergedLinear)) for module in model.modules()):
        raise UserError("the network is merged already", "merge the one it was made from", BAD_CHECKPOINT)
    refuse_captured(model)
    model = copy.deepcopy(model).eval()
    before_sign = {group.gate for group in read_by_sign(model)}  # only the sign of such a BN is ever looked at
    for name, block in list(model.named_modules()):
        if isinstance(block, ConvBNAct) and isinstance(block.bn, nn.BatchNorm2d):
            _fold_block(name, block, f"{name}.bn" in before_sign)
    left = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if left:
        raise UserError(f"{left[0]} follows no convolution of a block and cannot be folded", _HINT, BAD_CHECKPOINT)
    for name, layer in list(model.named_modules()):  # quantized layers without a batch norm
        if isinstance(layer, (QuantConv2d, QuantLinear)):
            codes, scale, bias = _codes_scale_bias(layer)
            replace_child(model, name, _merged_layer(layer, codes, scale, bias))
    return model.eval()  # the new layers, too


def _codes_scale_bias(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (out, ...), positive scale (out,) with the input's in it, and bias (out,) of a layer in eval mode."""
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
    """The scale of the output, (out,): the weight's times the input's."""
    scale = combined(layer.input_quantizer(codes.new_zeros(1, 1)).scale, scale)
    return codes.new_ones(len(codes)) if scale is None else scale.flatten().expand(len(codes)).clone()


def _merged_layer(layer: nn.Conv2d | nn.Linear, codes: Tensor, scale: Tensor | None, bias: Tensor) -> nn.Module:
    """The layer that holds the result; float weights take their scale in."""
    quantizer = getattr(layer, "input_quantizer", None)
    bits = getattr(layer, "weight_bits", 32)
    if bits == 32:
        if scale is not None:
            codes = codes * scale.reshape(-1, *(1,) * (codes.ndim - 1))
        codes, scale = codes.clone(), None
    else:
        codes = fold.stored(codes)
    return fold.merged(layer, codes, scale, bias, bits, quantizer)


def _fold_block(name: str, block: ConvBNAct, before_sign: bool) -> None:
    if not folds(block):  # its batch norm may stand anywhere: before the convolution, behind a sum
        raise UserError(
            f"{name} is a {type(block).__name__} with a forward of its own: its batch norm cannot be folded",
            USE_A_WRAPPER,
            BAD_CHECKPOINT,
        )
    if isinstance(block.conv, BNFoldConv2d):  # folded while it trained: nothing is left to compute
        block.conv, block.bn = _merged_layer(block.conv, *_codes_scale_bias(block.conv)), nn.Identity()
        return
    conv, bn = block.conv, fold.affine(cast(nn.BatchNorm2d, block.bn))
    if not isinstance(conv, nn.Conv2d) or len(bn.multiplier) != conv.out_channels:
        raise UserError(f"{name}: its batch norm does not fit its convolution", _HINT, BAD_CHECKPOINT)
    pooled = block.pool_first and not isinstance(block.pool, nn.Identity)
    if pooled and not isinstance(block.pool, nn.MaxPool2d):
        raise UserError(
            f"{name}: a batch norm behind {type(block.pool).__name__} cannot be folded", _HINT, BAD_CHECKPOINT
        )
    codes, scale, bias = _codes_scale_bias(conv)
    shape = (-1, *(1,) * (codes.ndim - 1))
    if before_sign:
        kept = fold.threshold(bn, scale, bias, _largest_sum(conv, codes))
        flip, scale_out, bias_out = kept.flip, None, kept.bias
    else:
        flip = torch.where(bn.multiplier < 0, -1.0, 1.0).to(scale.dtype) if pooled else torch.ones_like(scale)
        multiplier = bn.multiplier * flip
        scale_out, bias_out = scale * multiplier, bias * multiplier + bn.shift * flip
    if pooled:  # max(-z) is not -max(z): the sign has to wait until after the pool
        bias_out = bias_out * flip if before_sign else bias_out
        block.bn = fold.Flip(flip) if (flip < 0).any() else nn.Identity()
    else:
        block.bn = nn.Identity()
        if before_sign:
            codes = codes * flip.reshape(shape)
    block.conv = _merged_layer(conv, codes, scale_out, bias_out)


def _largest_sum(conv: nn.Conv2d, codes: Tensor) -> Tensor:
    """The largest |conv(input codes, codes)| of each filter; for float inputs, as good as infinite."""
    quantizer = getattr(conv, "input_quantizer", Identity())
    largest = 2.0**quantizer.bits if quantizer.bits <= 8 else 1e6
    return codes.abs().flatten(1).sum(1) * largest
