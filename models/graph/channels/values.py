"""The values of a walk: labels, and tensors of the network or of its code (Raw)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


@dataclass(frozen=True)
class Raw:
    """A tensor of the network, perhaps with axes of size 1 added or removed, or a value computed from such tensors.

    Args:
        own: the network's tensor; None for a computed value.
        value: the tensor that a call reads.
    """

    own: Tensor | None
    value: Tensor

    def viewed(self, value: Tensor) -> Raw | None:
        """Return the same tensor in the shape of `value`, None if more than axes of size 1 changed."""
        same = self.own is not None and [n for n in value.shape if n > 1] == [n for n in self.own.shape if n > 1]
        return Raw(self.own, value) if same else None

    def axis(self, axis: int) -> int:
        """Return the axis of the network's tensor for an axis of the value with more than one entry."""
        assert self.own is not None
        before = sum(size > 1 for size in self.value.shape[:axis])
        return [place for place, size in enumerate(self.own.shape) if size > 1][before]


def nothing(shape: Any) -> Tensor:
    """Return labels of this shape for a value that is not a channel."""
    return torch.zeros((), dtype=torch.int64).expand(shape)


def labels_of(value: Any) -> Any:
    return nothing(value.value.shape) if isinstance(value, Raw) else value


def as_raw(value: Any) -> Any:
    return Raw(None, value) if isinstance(value, Tensor) else value


def contents(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.value if isinstance(leaf, Raw) else leaf, tree)


def _without_contents(tree: Any) -> Any:
    """Return arguments as tensors on the meta device, on which an operation returns only a shape."""
    raw = [leaf.value for leaf in tree_leaves(tree) if isinstance(leaf, Raw)]
    kind = next((value.dtype for value in raw if value.is_floating_point()), torch.float32)

    def empty(leaf: Any) -> Any:
        if isinstance(leaf, Raw):
            return leaf.value.to("meta")
        return torch.empty(leaf.shape, dtype=kind, device="meta") if isinstance(leaf, Tensor) else leaf

    return tree_map(empty, tree)


def run_empty(target: Any, args: Any, kwargs: Any) -> Any:
    args, kwargs = _without_contents((args, kwargs))
    return target(*args, **kwargs)
