"""A batch norm as the tensors and numbers that formulas take."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Norm(NamedTuple):
    """What a batch norm is: gamma and beta, running statistics and the batches that they are of, if it has these.

    Args:
        share: of a batch in the running statistics, (); None: all batches count alike.
    """

    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    batches: Tensor | None
    share: Tensor | None
    eps: Tensor
