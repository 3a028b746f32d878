"""A channel shuffle (ShuffleNet, arXiv 1707.01083) in one pass over channels-last memory.

A shuffle splits the channels in groups, swaps groups and members, and joins them. PyTorch copies the value into the other
memory format and back for it, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from models.fused.layout import is_last
from models.graph.calls import source
from models.layers.quantizers.base import Quantized


class Shuffle(nn.Module):
    """A replacement for the nodes of a channel shuffle, in training and evaluation: it moves the same numbers or codes.

    Shapes: (B, C, H, W) -> the same. Channel c comes to place (c mod C/groups) * groups + c // (C/groups).

    Args:
        nodes: the nodes that it replaces, in order.
        keeps: whether these nodes return channels-last memory for such an input.
    """

    def __init__(self, nodes: Sequence[fx.Node], groups: int, keeps: bool) -> None:
        super().__init__()
        self._nodes = (*nodes,)
        self.groups, self.keeps = groups, keeps

    def forward(self, x: Tensor | Quantized) -> Tensor | Quantized:
        return x._replace(codes=self._moved(x.codes)) if isinstance(x, Quantized) else self._moved(x)

    def _moved(self, x: Tensor) -> Tensor:
        """Return the moved numbers. In evaluation their strides stay the network's own, as the bits of sums depend on them."""
        if not (self.training or self.keeps) or not is_last(x):
            for result in results(self._nodes, x):
                x = result
            return x
        apart = x.permute(0, 2, 3, 1).unflatten(3, (self.groups, -1))
        return apart.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


def results(nodes: Sequence[fx.Node], x: Tensor) -> Iterator[Tensor]:
    """Yield what each node gives, the first one for `x`. Another value that they read is the number of pictures."""
    before, count = source(nodes[0]), len(x)

    def value(node: fx.Node) -> Tensor | int:
        return x if node is before else count

    for node in nodes:
        args, kwargs = map_arg((node.args, node.kwargs), value)
        before, x = node, node.target(*args, **kwargs)  # type: ignore[operator]
        yield x
