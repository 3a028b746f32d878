"""The values of a walk: labels, and tensors of the network or of its code (Raw)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


@dataclass(frozen=True)
class Raw:
    """A tensor of the network, or what is computed of such alone: then `own` is None."""

    own: Tensor | None
    value: Tensor


def nothing(shape: Any) -> Tensor:
    """Labels of what is no channel."""
    return torch.zeros((), dtype=torch.int64).expand(shape)


def labels_of(value: Any) -> Any:
    return nothing(value.value.shape) if isinstance(value, Raw) else value


def as_raw(value: Any) -> Any:
    return Raw(None, value) if isinstance(value, Tensor) else value


def contents(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.value if isinstance(leaf, Raw) else leaf, tree)


def _without_contents(tree: Any) -> Any:
    """Arguments as tensors of the meta device: what an operation gives of them has its shape alone."""
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
