"""Which nodes of a network one segment, or a kernel of its own, computes in training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from torch import fx, nn

from models.fused import windows
from models.fused.grid import Act
from models.fused.segment import Segment
from models.fused.shuffles import Found
from models.graph.flow import module, only_reader, places, read_apart
from models.graph.normal import NormalForm, type_and_device
from models.layers import columns
from models.layers.bnfold import FoldedNorm
from models.layers.conv_q import QuantConv2d
from models.layers.quantizers.base import Quantizer

ACTS: dict[type, Act] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}
FEW = 2**21
"""The fewest numbers in a batch of a segment without codes for which a CPU's loop is quicker than torch's batch norm,
activation and max-pool. A batch norm alone is as quick by torch."""


def segments(
    form: NormalForm, batch: int | None, moves: Mapping[fx.Node, Found]
) -> Iterator[tuple[list[fx.Node], Segment]]:
    """Yield the nodes of each segment, in order, and the segment.

    Args:
        moves: the shuffles of the network. Codes that one convolution reads behind a shuffle are computed before it.
    """
    taken: set[fx.Node] = set()
    for node in form.captured.graph.nodes:
        if node not in taken and (found := _from(form, node, batch, moves)) is not None:
            taken |= {*found[0]}
            yield found


def pools(form: NormalForm) -> dict[fx.Node, nn.MaxPool2d]:
    """Return the max-pools that pool.py computes; none on a CPU."""
    if type_and_device(form)[1].type != "cuda":
        return {}
    every = ((node, _pool(form, node)) for node in form.captured.graph.nodes)
    return {node: pool for node, pool in every if pool is not None and not has_hooks(pool)}


def numbers(node: fx.Node) -> int:
    """Return the count of numbers of a node's output, for one picture."""
    return prod(count for count in node.meta["shape"] if count)


class _Chain:
    """The nodes that a segment takes, one behind the other.

    Attributes:
        nodes: those taken so far.
        at: the next node, the only reader of their result; None if there are several or none.
    """

    def __init__(self, form: NormalForm, first: fx.Node) -> None:
        self.form = form
        self.nodes: list[fx.Node] = []
        self.at: fx.Node | None = first

    @property
    def next(self) -> nn.Module | None:
        """The module of the next node."""
        return None if self.at is None else module(self.form, self.at)

    def take(self, fits: bool = True) -> bool:
        """Add the next node, if it `fits` and its module has no hooks: hooks need a call of their module."""
        if not fits or self.at is None or has_hooks(self.next):
            return False
        self.nodes.append(self.at)
        self.at = only_reader(self.at)
        return True

    def take_layer(self, first: fx.Node) -> nn.Conv2d | None:
        layer = self.next
        known = isinstance(layer, QuantConv2d) or _is_quicker_here(self.form, first)
        if not isinstance(layer, nn.Conv2d) or not self.take(known and _is_called_once(self.form, first)):
            return None
        while self.take(isinstance(self.next, FoldedNorm)):
            pass
        return layer

    def take_norm(self) -> nn.BatchNorm2d | None:
        norm = self.next
        fits = isinstance(norm, nn.BatchNorm2d) and self.take(_is_plain(self.form, self.at, norm))
        return norm if fits else None  # type: ignore[return-value]

    def take_pool(self) -> nn.MaxPool2d | None:
        pool = _pool(self.form, self.at)
        return pool if self.take(pool is not None) else None

    def take_act(self) -> Act:
        act = ACTS.get(type(self.next))
        return act if act is not None and self.take() else "none"

    def take_quantizer(self) -> Quantizer | None:
        """Return the quantizer behind the nodes. A layer's own stays with the layer."""
        quantizer = _quantizer(self.form, self.at, bool(self.nodes))
        self.take(quantizer is not None and isinstance(self.next, Quantizer))
        return quantizer


def _from(
    form: NormalForm, first: fx.Node, batch: int | None, moves: Mapping[fx.Node, Found]
) -> tuple[list[fx.Node], Segment] | None:
    """Return the nodes and the segment that begin with a node; None: there is no segment."""
    chain, on_gpu = _Chain(form, first), type_and_device(form)[1].type == "cuda"
    layer, norm = chain.take_layer(first), chain.take_norm()
    pools_here = bool(chain.nodes) and not on_gpu
    pool = chain.take_pool() if pools_here else None
    act = chain.take_act()
    pool = chain.take_pool() if pools_here and pool is None else pool
    shuffle = moves.get(chain.at) if chain.at is not None else None
    quantizer = chain.take_quantizer() if shuffle is None else _behind(form, shuffle)
    if not chain.nodes or (layer is None and norm is None and quantizer is None):
        return None
    without_codes = not on_gpu and quantizer is None and not isinstance(layer, QuantConv2d)
    bare = act == "none" and pool is None
    if without_codes and batch is not None and (bare or batch * max(map(numbers, chain.nodes)) < FEW):
        return None
    last = chain.nodes[-1] if shuffle is None else shuffle.nodes[-1]
    behind = [module(form, node) for node in last.users]
    convolutions = [found for found in behind if isinstance(found, QuantConv2d) and not has_hooks(found)]
    alone = quantizer is not None and len(convolutions) == len(behind)
    return chain.nodes, Segment(layer, norm, act, quantizer, pool, convolutions if alone else [])


def _pool(form: NormalForm, node: fx.Node | None) -> nn.MaxPool2d | None:
    """Return a node's max-pool, if it has one that `Windows` describe."""
    found = module(form, node) if node is not None else None
    return found if type(found) is nn.MaxPool2d and windows.fits(found) else None


def has_hooks(found: nn.Module | None) -> bool:
    """Return whether a module has a forward of its own, or hooks besides those whose work segments do, too: they have the
    attribute in_segments.
    """
    if found is not None and "forward" in vars(found):
        return True
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = (hook for kind in kinds for hook in getattr(found, kind, {}).values())
    return any(not getattr(hook, "in_segments", False) for hook in hooks)


def _is_called_once(form: NormalForm, node: fx.Node) -> bool:
    return len(places(form)[str(node.target)]) == 1


def _is_plain(form: NormalForm, node: fx.Node | None, norm: nn.BatchNorm2d) -> bool:
    """Return whether a norm is torch's BatchNorm2d, with tensors that nothing else reads."""
    plain = type(norm) is nn.BatchNorm2d
    return node is not None and plain and len(node.meta["shape"]) == 4 and str(node.target) not in read_apart(form)


def _is_quicker_here(form: NormalForm, node: fx.Node) -> bool:
    """Return whether a plain convolution before a norm is faster in a segment: with a bias, which the norm cancels, or
    on a GPU with few inputs.
    """
    layer, behind = module(form, node), only_reader(node)
    if type(layer) is not nn.Conv2d or behind is None:
        return False
    norm, few = module(form, behind), layer.weight.is_cuda and layer.in_channels <= columns.FEW
    return (layer.bias is not None or few) and isinstance(norm, nn.BatchNorm2d) and _is_plain(form, behind, norm)


def _quantizer(form: NormalForm, reader: fx.Node | None, follows: bool) -> Quantizer | None:
    """Return the quantizer that reads a value: a node of the graph, or the input quantizer of the layer that reads it.

    Args:
        follows: whether there is a segment that an input quantizer could end.
    """
    found = module(form, reader) if reader is not None else None
    if follows and isinstance(found, QuantConv2d) and not has_hooks(found):
        found = found.input_quantizer
    known = isinstance(found, Quantizer) and _has_rule(type(found)) and not has_hooks(found)
    return found if known and len(reader.meta["shape"]) == 4 else None  # type: ignore[union-attr,return-value]


def _behind(form: NormalForm, shuffle: Found) -> Quantizer | None:
    """Return the input quantizer of the convolution that alone reads a shuffled value; None if there is no such one.

    It may run before the shuffle, because a quantizer codes each number by itself.
    """
    reader = only_reader(shuffle.nodes[-1])
    reads = reader is not None and isinstance(module(form, reader), QuantConv2d)
    return _quantizer(form, reader, True) if reads else None


def _has_rule(kind: type[Quantizer]) -> bool:
    """Return whether a quantizer's rule describes its calls: the class that computes a call gives the rule, too."""
    first = {name: next(each for each in kind.__mro__ if name in vars(each)) for name in ("rule", "forward")}
    return first["rule"] is not Quantizer and first["rule"] is first["forward"]
