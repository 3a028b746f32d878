"""prepare(model, spec): a quantized copy of a float network, layer by layer, names unchanged."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import nn

from engine.errors import UserError
from models.blocks import ConvBNAct
from models.channels import ChannelGroup, Network
from models.layers import quantizers as q
from models.layers.bnfold import BNFoldConv2d, FoldedNorm
from models.layers.conv_q import QuantConv2d, QuantLinear
from models.networks.separable import SeparableBlock
from quant.spec import QuantizerSpec, QuantSpec

PLAIN_BLOCK = "let a module around the ConvBNAct do what comes before or after it, and leave its forward as it is"


"""What to do about a block that does not fold."""


def weight_quantizer(spec: QuantizerSpec, shape: torch.Size) -> q.Quantizer:
    """The module for a weight of this shape."""
    if spec.kind == "dorefa":
        return q.DorefaWeight(spec.bits)
    if spec.kind == "binary":
        return q.BinaryWeight(spec.scale, spec.ste)
    if spec.kind == "ternary":
        return q.TernaryWeight(spec.scale, spec.ste, spec.gap, shape)
    if spec.kind == "affine":
        return q.AffineWeight(spec.bits, spec.symmetric, spec.per_channel)
    return q.Identity()


def input_quantizer(spec: QuantizerSpec) -> q.Quantizer:
    """The module for a layer's input."""
    if spec.kind == "dorefa":
        return q.DorefaActivation(spec.bits)
    if spec.kind == "binary":
        return q.BinaryActivation(spec.ste)
    if spec.kind == "ternary":
        return q.TernaryActivation(spec.ste)
    if spec.kind == "affine":
        return q.AffineActivation(spec.bits, spec.symmetric)
    return q.Identity()


def prepare(model: Network, spec: QuantSpec) -> Network:
    """Quantize a copy of `model`; parameters keep their names, so float weights load into it and back.

    Every convolution and linear layer but the exceptions gets two quantizers. Where signed activation
    codes follow, the ReLU before them becomes an identity: sign(relu(x)) would be +1 everywhere.

    Float32 or float64, the arithmetic stays what it was. Sums of codes overflow float16, and bfloat16 rounds them.

    Raises:
        UserError: exit 2 if an exception names no layer, signed codes have no block to stand in, the weights to
            quantize are of another type, or a batch norm cannot be folded or moved as the spec says.
    """
    model = copy.deepcopy(model)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    unknown = [name for name in (*spec.exceptions, *spec.float_inputs, *spec.measured_inputs) if name not in layers]
    if unknown:
        raise UserError(f"no layer is called {unknown[0]}", f"the layers are {', '.join(layers)}")
    chosen = {name: layer for name, layer in layers.items() if name not in spec.exceptions}
    if spec.weight.kind != "float" or spec.activation.kind != "float":
        for name, layer in chosen.items():
            weight = weight_quantizer(spec.weight, layer.weight.shape)
            activation = q.Identity() if name in spec.float_inputs else input_quantizer(spec.activation)
            if name in spec.measured_inputs:
                activation = q.AffineActivation(spec.activation.bits, symmetric=False)
            if layer.weight.dtype not in (torch.float32, torch.float64):
                raise UserError(
                    f"{name} has weights of {layer.weight.dtype}", "convert the network first: model.float()"
                )
            for new in (weight, activation):  # new state goes where the weights are, in their arithmetic
                new.to(layer.weight.device, layer.weight.dtype)
            if isinstance(layer, nn.Conv2d):
                replace_child(model, name, QuantConv2d.from_float(layer, weight, activation))
            else:
                replace_child(model, name, QuantLinear.from_float(layer, weight, activation))
    if input_quantizer(spec.activation).signed:
        _signed_inputs(model, set(chosen))
    if spec.order == "bacp":
        _pool_first(model)
    if spec.bn_fold:
        _fold_in_training(model)
    if spec.bn_momentum is not None:
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = spec.bn_momentum
    return model


def reads_sums(model: Network) -> list[str]:
    """Layers whose input no BN has scaled: the second halves of depthwise pairs."""
    return [c.after for group in model.channel_groups() for c in group.consumers if c.after]


def read_by_sign(model: Network) -> list[ChannelGroup]:
    """Groups whose every reader binarizes its input: of such a BN's output only the sign is ever looked at."""

    def binarizes(layer: str) -> bool:
        return isinstance(getattr(model.get_submodule(layer), "input_quantizer", None), q.BinaryActivation)

    return [g for g in model.channel_groups() if g.consumers and all(binarizes(c.layer) for c in g.consumers)]


def folds(block: ConvBNAct) -> bool:
    """Whether a block's batch norm is known to follow its `conv`; a forward of the user's may do anything with them."""
    known = (ConvBNAct.forward, SeparableBlock.forward)
    return type(block).forward in known and "forward" not in vars(block)


def replace_child(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the module `name` is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _pool_first(model: nn.Module) -> None:
    """Put each block's pool before its batch norm; which of them have one, the block knows."""
    for name, parent in _with_norm(model):
        block: Any = parent  # it may be of the user's: what counts is that it has the switch
        if not hasattr(block, "pool_first"):
            raise UserError(
                f"{name} stands in no block with a switch `pool_first`: the order bacp cannot be had",
                "build on models.blocks.ConvBNAct, or take --order cbap",
            )
        block.pool_first = True


def _with_norm(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The name of every batch norm, and the module that it is a child of."""
    found = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [(name, model.get_submodule(name.rpartition(".")[0])) for name in found]


def _fold_in_training(model: nn.Module) -> None:
    """Let each block's convolution do the work of its batch norm; that of a float convolution keeps its own."""
    for name, block in _with_norm(model):
        if not isinstance(block, ConvBNAct) or name.rpartition(".")[2] != "bn":
            raise UserError(
                f"{name} follows no convolution of a block and cannot be folded",
                "build the network from models.blocks.ConvBNAct, or take --bn_fold 0",
            )
        if not folds(block):
            raise UserError(
                f"{name.rpartition('.')[0]} is a {type(block).__name__} with a forward of its own: "
                "its batch norm cannot be folded",
                f"{PLAIN_BLOCK}; or take --bn_fold 0",
            )
        conv = block.conv
        if isinstance(conv, QuantConv2d) and isinstance(block.bn, nn.BatchNorm2d):
            folding = BNFoldConv2d.from_float(conv, conv.weight_quantizer, conv.input_quantizer)
            block.bn = FoldedNorm.from_norm(block.bn)
            block.conv = folding.attach(block.bn)


def _signed_inputs(model: Network, quantized: set[str]) -> None:
    """Take the ReLU away between a gate and consumers that all read signed codes."""
    fed = set()
    for group in model.channel_groups():
        names = {consumer.layer for consumer in group.consumers}
        if not names & quantized:
            continue
        block = model.get_submodule(group.gate.rpartition(".")[0])
        if not names <= quantized or not hasattr(block, "act"):
            raise UserError(
                f"{group.gate}: binary and ternary activations need a block with a child `act`, read by quantized layers alone",
                "build on models.blocks.ConvBNAct, or quantize activations to 2 to 8 bits",
            )
        block.act = nn.Identity()
        fed |= names | {consumer.after for consumer in group.consumers if consumer.after}  # no ReLU before those
    if left := sorted(quantized - fed):
        print(
            f"warning: the inputs of {', '.join(left)} come from no declared group; if a ReLU stands before "
            "them, their binary or ternary codes say little",
            file=sys.stderr,
        )
