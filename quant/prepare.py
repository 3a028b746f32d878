"""prepare(model, spec): a quantized copy of a float network, layer by layer, names unchanged."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from engine.cli.argtypes import nearest
from engine.cli.naming import called
from engine.errors import UserError
from models.blocks import ConvBNAct
from models.channels import ChannelGroup, Network
from models.graph.normal import NormalForm
from models.layers.bnfold import BNFoldConv2d, FoldedNorm
from models.layers.conv_q import QuantConv2d, QuantLinear
from models.layers.quantizers import kinds
from models.layers.quantizers.base import Quantizer
from models.networks.separable import SeparableBlock
from quant.spec import QuantizerSpec, QuantSpec

USE_A_WRAPPER = "let a module around the ConvBNAct do what comes before or after it, and leave its forward as it is"
"""What to do about a block that does not fold."""

Instead = Callable[[str, str], str]
"""The command line that asks for the same with another value of a flag; empty where no command has such a way."""

OWNERS = {"--bn_fold": "quant.wqaq", "--order": "quant.wbwtab"}
"""The commands that have the flags which hints name here: those that prepare a network may lack them."""


def plainly(flag: str, value: str) -> str:
    """What to ask for instead where nobody has typed a command."""
    return f"{OWNERS[flag]} {flag} {value}"


def weight_quantizer(spec: QuantizerSpec, weight: Tensor) -> Quantizer:
    """The module for this weight."""
    return kinds.lookup(spec.kind).weight(spec, weight)


def input_quantizer(spec: QuantizerSpec, signed: bool = False) -> Quantizer:
    """The module for a layer's input.

    Args:
        signed: whether the input may be negative.
    """
    return kinds.lookup(spec.kind).activation(spec, signed)


def prepare(model: Network, spec: QuantSpec, instead: Instead = plainly) -> Network:
    """Quantize a copy of `model`; parameters keep their names, so float weights load into it and back.

    Every convolution and linear layer but the exceptions gets two quantizers. Where signed activation
    codes follow, the ReLU before them becomes an identity: sign(relu(x)) would be +1 everywhere.

    Float32 or float64, the arithmetic stays what it was. Sums of codes overflow float16, and bfloat16 rounds them.

    Args:
        instead: for the hint where the network does not bear what the spec asks for.

    Raises:
        UserError: exit 2 if an exception names no layer, signed codes have no block to stand in, the weights to
            quantize are of another type, or a batch norm cannot be folded or moved as the spec says.
    """
    refuse_captured(model)
    model = copy.deepcopy(model)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    unknown = [name for name in (*spec.exceptions, *spec.float_inputs, *spec.measured_inputs) if name not in layers]
    if unknown:
        raise UserError(f"no layer is called {unknown[0]}", f"the layers are {', '.join(layers)}")
    chosen = {name: layer for name, layer in layers.items() if name not in spec.exceptions}
    if spec.weight.bits < 32 or spec.activation.bits < 32:
        _quantize(model, chosen, spec)
    if input_quantizer(spec.activation).signed:
        _signed_inputs(model, set(chosen), spec.activation)
    if spec.order == "bacp":
        _pool_first(model, instead)
    if spec.bn_fold:
        _fold_in_training(model, instead)
    if spec.bn_momentum is not None:
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = spec.bn_momentum
    return model


def _quantize(model: Network, layers: Mapping[str, nn.Conv2d | nn.Linear], spec: QuantSpec) -> None:
    """Put a quantized layer in the place of each of these, with two quantizers and its very parameters."""
    inner, outer = (spec.weight, spec.activation), (_at_end(spec.weight), _at_end(spec.activation))
    ends = model.ends if outer != inner else ()
    rectified = _rectified(model) if spec.activation.traits.follows_sign else set()
    for name, layer in layers.items():
        weights, inputs = outer if name in ends else inner
        if name in spec.float_inputs:
            inputs = QuantizerSpec()
        if name in spec.measured_inputs:
            inputs = QuantizerSpec("affine", spec.activation.bits)
        weight = weight_quantizer(weights, layer.weight.detach())
        activation = input_quantizer(inputs, signed=name not in rectified)
        if layer.weight.dtype not in (torch.float32, torch.float64):
            raise UserError(f"{name} has weights of {layer.weight.dtype}", "convert the network first: model.float()")
        for new in (weight, activation):  # new state goes where the weights are, in their arithmetic
            new.to(layer.weight.device, layer.weight.dtype)
        if isinstance(layer, nn.Conv2d):
            replace_child(model, name, QuantConv2d.from_float(layer, weight, activation))
        else:
            replace_child(model, name, QuantLinear.from_float(layer, weight, activation))


def _at_end(part: QuantizerSpec) -> QuantizerSpec:
    """The quantizer of the first and the last layer, if they are quantized."""
    return replace(part, bits=part.traits.end_bits) if part.traits.end_bits else part


def _rectified(model: Network) -> set[str]:
    """Layers that read what a ReLU gives: their input is never negative."""
    found = set()
    for group in model.channel_groups():
        block = model.get_submodule(group.gate.rpartition(".")[0])
        if isinstance(getattr(block, "act", None), (nn.ReLU, nn.ReLU6)):
            found |= {consumer.layer for consumer in group.consumers}
    return found


def meet(spec: QuantSpec, model: Network, keep_float: Sequence[str] = ()) -> QuantSpec:
    """The spec as this network takes it: its ends are spared, and the layers that are to stay float are named.

    Args:
        keep_float: names of convolutions and linear layers, or patterns of them (fnmatch).

    Raises:
        UserError: exit 2 for a pattern that matches none, and if nothing is left to quantize.
    """
    layers = [name for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    kept: list[str] = []
    for pattern in keep_float:
        found = [name for name in layers if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            raise UserError(
                f"--keep_float {pattern!r} matches no convolution or linear layer",
                nearest(pattern, layers) or f"the layers are {', '.join(layers)}",
            )
        kept += found
    refuse_captured(model)
    spec = spec.at_ends(*model.ends, reads_sums(model))
    spec = replace(spec, exceptions=tuple(dict.fromkeys((*spec.exceptions, *kept))))
    if kept and spec.kept >= {*layers}:
        raise UserError("--keep_float leaves no layer to quantize", "name fewer layers")
    return spec


def refuse_captured(model: nn.Module) -> None:
    """Quantizing and merging ask a network for its channel groups and blocks; a captured one declares none.

    Raises:
        UserError: exit 2.
    """
    if isinstance(model, NormalForm):
        raise UserError(
            "this network does not declare its channels: it can be trained, pruned and refined, not yet quantized or merged",
            "build it from models.blocks.ConvBNAct, with channel_groups() and ends: see README, 'A network of your own'",
        )


def reads_sums(model: Network) -> list[str]:
    """Layers whose input no BN has scaled: the second halves of depthwise pairs."""
    return [c.after for group in model.channel_groups() for c in group.consumers if c.after]


def read_by_sign(model: Network) -> list[ChannelGroup]:
    """Groups of whose output every reader looks at the sign alone: it binarizes its input."""

    def binarizes(layer: str) -> bool:
        return getattr(getattr(model.get_submodule(layer), "input_quantizer", None), "sign_alone", False)

    return [g for g in model.channel_groups() if g.consumers and all(binarizes(c.layer) for c in g.consumers)]


def folds(block: ConvBNAct) -> bool:
    """Whether a block's batch norm is known to follow its `conv`; a forward of the user's may do anything with them."""
    known = (ConvBNAct.forward, SeparableBlock.forward)
    return type(block).forward in known and "forward" not in vars(block)


def replace_child(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the module `name` is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _pool_first(model: nn.Module, instead: Instead) -> None:
    """Put each block's pool before its batch norm; which of them have one, the block knows."""
    for name, parent in _with_norm(model):
        block: Any = parent  # it may be of the user's: what counts is that it has the switch
        if not hasattr(block, "pool_first"):
            other = instead("--order", "cbap")
            raise UserError(
                f"{name} stands in no block with a switch `pool_first`: the order bacp cannot be had",
                "build on models.blocks.ConvBNAct" + (f", or take the other order: {called(other)}" if other else ""),
            )
        block.pool_first = True


def _with_norm(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The name of every batch norm, and the module that it is a child of."""
    found = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [(name, model.get_submodule(name.rpartition(".")[0])) for name in found]


def _fold_in_training(model: nn.Module, instead: Instead) -> None:
    """Let each block's convolution do the work of its batch norm; that of a float convolution keeps its own."""
    unfolded = f"quantize without a fold: {called(instead('--bn_fold', '0'))}"
    for name, block in _with_norm(model):
        if not isinstance(block, ConvBNAct) or name.rpartition(".")[2] != "bn":
            raise UserError(
                f"{name} follows no convolution of a block and cannot be folded",
                f"build the network from models.blocks.ConvBNAct, or {unfolded}",
            )
        if not folds(block):
            raise UserError(
                f"{name.rpartition('.')[0]} is a {type(block).__name__} with a forward of its own: "
                "its batch norm cannot be folded",
                f"{USE_A_WRAPPER}; or {unfolded}",
            )
        conv = block.conv
        if isinstance(conv, QuantConv2d) and isinstance(block.bn, nn.BatchNorm2d):
            folding = BNFoldConv2d.from_float(conv, conv.weight_quantizer, conv.input_quantizer)
            block.bn = FoldedNorm.from_norm(block.bn)
            block.conv = folding.attach(block.bn)


def _signed_inputs(model: Network, quantized: set[str], inputs: QuantizerSpec) -> None:
    """Take the ReLU away between a gate and consumers that all read signed codes."""
    fed = set()
    for group in model.channel_groups():
        names = {consumer.layer for consumer in group.consumers}
        if not names & quantized:
            continue
        block = model.get_submodule(group.gate.rpartition(".")[0])
        if not names <= quantized or not hasattr(block, "act"):
            raise UserError(
                f"{group.gate}: {inputs.kind} activations need a block with a child `act`, read by quantized layers alone",
                "build on models.blocks.ConvBNAct, or quantize activations to 2 to 8 bits",
            )
        block.act = nn.Identity()
        fed |= names | {consumer.after for consumer in group.consumers if consumer.after}  # no ReLU before those
    if left := sorted(quantized - fed):
        print(
            f"warning: the inputs of {', '.join(left)} come from no declared group; if a ReLU stands before "
            f"them, their {inputs.kind} codes say little",
            file=sys.stderr,
        )
