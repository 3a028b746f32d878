"""Absorbing: the constant outputs of dropped channels move into the next layers' biases.

Every dropped channel counts as one with a BN scale of 0. It outputs its batch norm's shift, passed through the operations
behind it: act(beta). For a channel with another scale this is only an estimate of what the next layers lose.
The graph is run on pictures of NaN.
Values that depend on the picture become NaN, and only the constants of dropped channels stay numbers. If a reader sees
the same number at every place, padding included, the sum of weight * number moves into its bias exactly. Absorbing
biases into the next layers is from Nagel et al., arXiv 1906.04721, section 4.1.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from models.graph.calls import BATCH, COMPARISONS, SIZES, is_truth
from models.graph.chains import fits
from models.graph.channels import labels as table
from models.graph.channels.classes import Channels
from models.graph.channels.kernels import passes_channels
from models.graph.channels.walk import ACTIVATIONS, POOLS
from models.graph.flow import is_shared
from models.graph.normal import NormalForm
from models.graph.surgery import truths

aten = torch.ops.aten

Reader = Any
"""A convolution or linear layer. Any, because torch has no common type for their attributes."""

KNOWN = table.ELEMENTWISE | table.MOVES | table.SPATIAL | table.REDUCTIONS | {aten.pad, aten.constant_pad_nd, aten.glu}
"""Operations whose result is a number only where they read numbers alone. Results of others count as unknown."""


@dataclass
class Absorbed:
    """A network with the constants of dropped channels in the biases of their readers.

    Args:
        model: a copy of the network.
        left: dropped classes, scaled by a batch norm, with a constant that the bias of some reader cannot replace.
    """

    model: NormalForm
    left: set[int] = field(default_factory=set)


@torch.no_grad()
def absorb(form: NormalForm, found: Channels, dropped: Collection[int]) -> Absorbed:
    """Move the constants act(beta) of dropped channels into their readers' biases, in a copy.

    The copy computes the same without these channels where their gamma is 0, and nearly so where it is small.

    For a layer without a bias, the running mean of the one batch norm that reads it takes the constant.

    Args:
        form: the network.
        found: its classes of channels.
        dropped: the classes to drop.
    """
    result = Absorbed(copy.deepcopy(form))
    if not dropped:
        return result
    whole = copy.deepcopy(form).double().eval()  # fp32 would round the sums
    heard = Silence(whole, found, dropped)
    like = next(form.parameters())
    picture = torch.full((BATCH, *form.captured.picture), math.nan, dtype=torch.float64, device=like.device)
    heard.run(picture)
    names = {id(tensor): name for name, tensor in whole.named_parameters()}
    columns = {p.tensor: p.classes for p in found.places if not p.rows}
    scaled = {cls for place in found.places if place.norm for cls in place.classes.tolist()}
    for name, values in heard.values.items():
        layer: Reader = whole.get_submodule(name)
        classes = columns.get(names[id(layer.weight)])
        if classes is None:  # the layer reads no channels
            continue
        gone = torch.isin(classes, torch.tensor(sorted(dropped)))
        said = torch.where(gone.to(values.device), values, 0.0)
        known = ~said.isnan()
        change = _weighed(layer, torch.where(known, said, 0.0))
        if not bool((change == 0).all()) and not _add(result.model, name, change):
            known &= said == 0
        result.left |= scaled & {*classes[~known.cpu()].tolist()}
    return result


class Silence(fx.Interpreter):
    """An interpreter that runs a graph on pictures of NaN, with the scales of dropped channels 0.

    Attributes:
        values: by layer, the constant of each of its input channels, (inputs,); NaN for channels without one.
    """

    def __init__(self, form: NormalForm, found: Channels, dropped: Collection[int]) -> None:
        super().__init__(form, graph=form.captured.graph)
        held = dict(form.named_parameters())
        gone = torch.tensor(sorted(dropped), dtype=torch.int64)
        self.gone = {id(held[p.tensor]): torch.isin(p.classes, gone) for p in found.places if p.norm}
        self.values: dict[str, Tensor] = {}
        self.at: fx.Node

    def run_node(self, n: fx.Node) -> Any:
        self.at = n
        return super().run_node(n)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module, x = self.fetch_attr(target), args[0]
        if not isinstance(x, Tensor):
            return self._unknown()
        if isinstance(module, _BatchNorm):
            return self._norm(module, x)
        if isinstance(module, (_ConvNd, nn.Linear)):
            return self._layer(str(target), module, x)
        if isinstance(module, (*ACTIVATIONS, *POOLS)):
            out = module(x)
            return out if isinstance(module, POOLS) else torch.where(x.isnan(), x, out)
        return self._unknown()

    def _norm(self, module: _BatchNorm, x: Tensor) -> Tensor:
        """Return a batch norm's output: its shift for dropped channels, its usual output for others."""
        gone = self.gone.get(id(module.weight))
        out = module(x) if module.track_running_stats else torch.full_like(x, math.nan)
        if gone is None:
            return out
        shape = (1, -1, *(1,) * (x.ndim - 2))
        bias = torch.zeros_like(module.weight) if module.bias is None else module.bias
        return torch.where(gone.to(x.device).reshape(shape), bias.reshape(shape), out)

    def _layer(self, name: str, layer: Reader, x: Tensor) -> Tensor:
        said = _at_every_place(layer, x)
        before = self.values.get(name)  # a layer that is called twice has one bias for both calls
        self.values[name] = said if before is None else torch.where(before == said, said, math.nan)
        grouped = isinstance(layer, _ConvNd) and layer.groups > 1
        return layer(x) if grouped else self._unknown()

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        packet = getattr(target, "overloadpacket", None)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, (Tensor, Unknown))]
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if len(given) < len(leaves):
            return self._unknown()
        if truths.is_known(packet, args):
            return truths.chosen(packet, args)
        plain = packet in SIZES or target is operator.getitem
        if plain or not any(bool(leaf.isnan().any()) for leaf in given):
            return super().call_function(target, args, kwargs)
        if packet in COMPARISONS or packet in truths.LOGIC:
            known = packet in COMPARISONS or (is_truth(self.at) and len(given) == len(args))
            return truths.truth(packet, args, kwargs) if known else self._unknown()
        if packet in table.WITH_INDICES:  # of NaN, the places mean nothing
            values = super().call_function(target, args, kwargs)[0]
            return values, torch.full_like(values, math.nan)
        if packet not in KNOWN and not passes_channels(self.at):
            return self._unknown()
        return self._tainted(super().call_function(target, args, kwargs), given, packet)

    def _tainted(self, out: Any, given: list[Any], packet: Any) -> Any:
        """Return an operation's result with NaN restored where the operation hides it, such as behind a threshold."""
        if not isinstance(out, Tensor):
            return out
        if not out.is_floating_point():
            return self._unknown()
        if packet in table.ELEMENTWISE:
            for leaf in given:
                out = torch.where(leaf.isnan(), math.nan, out)
        if packet in table.PRODUCTS:  # 0 times a gate is 0, as gates are finite
            for leaf in given:
                out = torch.where(leaf == 0, 0.0, out)
        return out

    def _unknown(self) -> Any:
        """Return NaN in the shape that the graph records, or Unknown without one."""
        sizes = self.at.meta.get("sizes")
        if sizes is None:
            return Unknown()
        like = next(iter(self.module.parameters()))
        return torch.full(sizes, math.nan, dtype=torch.float64, device=like.device)


class Unknown:
    """A value of which nothing is known; it may stand for several tensors."""


def _at_every_place(layer: Reader, x: Tensor) -> Tensor:
    """Return the constant of each input channel at all places of a layer, padding included; NaN if places differ."""
    axis = x.ndim - 1 if isinstance(layer, nn.Linear) else 1
    rows = x.movedim(axis, 0).reshape(x.shape[axis], -1)
    low, high = rows.amin(1), rows.amax(1)
    same = high - low <= 1e-12 * high.abs()  # a mean of equal numbers is rounded
    if isinstance(layer, _ConvTransposeNd) or (isinstance(layer, _ConvNd) and _pads_zeros(layer)):
        same &= high == 0
    return torch.where(same, high, math.nan)


def _pads_zeros(layer: Reader) -> bool:
    padding = layer.padding
    if isinstance(padding, str):
        padding = (int(padding == "same" and max(layer.kernel_size) > 1),)
    return layer.padding_mode == "zeros" and any(padding)


def _weighed(layer: Reader, said: Tensor) -> Tensor:
    """Return a layer's output, (rows,), for one constant for each input channel."""
    if isinstance(layer, nn.Linear):
        return layer.weight @ said
    if isinstance(layer, _ConvTransposeNd):  # its input constants are all 0: see _at_every_place
        return said.new_zeros(layer.out_channels)
    weight = layer.weight.flatten(2).sum(2).unflatten(0, (layer.groups, -1))
    return (weight @ said.reshape(layer.groups, -1, 1)).flatten()


def _add(model: NormalForm, name: str, change: Tensor) -> bool:
    """Add `change`, (rows,), to a layer's output by its bias or its batch norm's mean. Return False if neither can."""
    layer: Reader = model.get_submodule(name)
    if layer.bias is not None:
        if is_shared(model, layer.bias):
            return False
        layer.bias += change.to(layer.bias.dtype)
        return True
    norm = _only_norm(model, name)
    if norm is None:
        return False
    norm.running_mean -= change.to(norm.running_mean.dtype)
    return True


def _only_norm(model: NormalForm, name: str) -> Any:
    """Return the batch norm that is a layer's only reader and does not share its running mean, None without one."""
    calls = [node for node in model.captured.graph.nodes if node.op == "call_module"]
    its = [node for node in calls if node.target == name]
    users = list(its[0].users)
    if len(its) != 1 or len(users) != 1 or users[0].op != "call_module":
        return None
    norm = model.get_submodule(str(users[0].target))
    same = [node for node in calls if model.get_submodule(str(node.target)) is norm]
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or len(same) > 1:
        return None
    fit = fits(model.get_submodule(name), norm, users[0])
    return norm if fit and not is_shared(model, norm.running_mean) else None
